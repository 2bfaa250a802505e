"""How long each phase of a dump takes, fitted to dumps that were made."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np
import numpy.typing as npt

from snaplib.forecasting.pipeline import Flow, Pipeline
from snaplib.forecasting.regression import Regression
from snaplib.forecasting.work import DumpRecord, Phases, Work

__all__ = ["PHASES", "DurationModel"]

FloatArray = npt.NDArray[np.float64]

#: The phases in their order.
PHASES = ("start", "walk", "memory", "commit")

_GB = 1e9
#: What each unit costs before anything was measured, in seconds, in the order of `_features`. Measured on
#: 2 shared CPUs (AMD EPYC), Linux 6.18, CRIU 4.2.1.
_PRIORS = {
    # a dump, a process, a thread, 1000 descriptors
    "start": (0.12, 0.01, 0.001, 0.05),
    # a dump, a process, a thread, 1000 descriptors, 1000 mappings, GB resident; of a delta, whose pages are
    # read meanwhile: a dump, a second of the pipeline, 1000 places read from
    "walk": (0.05, 0.02, 0.002, 0.05, 0.02, 0.05, 0.05, 0.5, 0.005),
    # a dump, a second of the pipeline, GB sent, 1000 places sent from
    "memory": (0.005, 0.9, 0.05, 0.01),
    # a dump, GB sent, a second of the pipeline
    "commit": (0.03, 0.02, 0.05),
}

#: Speeds before anything was measured, in bytes a second.
_MEMORY_BYTES_S = 1.5e9
_CODEC_BYTES_S = 4e8
_STORE_BYTES_S = 5e8
#: Smaller dumps say nothing of speeds.
_LEAST_BYTES = 16e6
_RATIO = 0.5


@attrs.frozen
class DurationModel:
    """Predicts seconds by phase.

    Attributes:
        pipeline: The speeds of the way to the store.
        phases: A regression for each phase.
        ratio: What the codec leaves of a byte, where a task's own ratio is not known.
        count: How many dumps are behind it.
    """

    pipeline: Pipeline
    phases: dict[str, Regression]
    ratio: float = _RATIO
    count: int = 0

    @classmethod
    def fit(
        cls,
        records: Sequence[DumpRecord],
        elsewhere: Sequence[DumpRecord] = (),
        weights: FloatArray | None = None,
    ) -> DurationModel:
        """Fit to dumps.

        Args:
            records: Dumps on this host to this store, in the order of time.
            elsewhere: Dumps on this host to other stores: they tell of all but the way there.
            weights: How much each of ``records`` counts.
        """
        ratios = [one.work.ratio for one in records if one.work.ratio is not None]
        ratio = float(np.median(ratios)) if ratios else _RATIO
        pipeline = _speeds(records)
        local = [*elsewhere, *records]
        both = None if weights is None else np.append(np.full(len(elsewhere), 0.5), weights)
        fitted = {}
        for phase in PHASES:
            rows = local if phase in ("start", "walk") else list(records)
            counts = both if phase in ("start", "walk") else weights
            features = np.array(
                [_features(phase, one.work, _flow(pipeline, one.work, ratio)) for one in rows]
            ).reshape(len(rows), len(_PRIORS[phase]))
            seconds = np.array([getattr(one.phases, f"{phase}_s") for one in rows], np.float64)
            fitted[phase] = Regression.fit(features, seconds, np.array(_PRIORS[phase]), counts)
        return cls(pipeline, fitted, ratio, len(records))

    def phases_of(self, work: Work, bandwidth_bytes_s: float | None = None) -> Phases:
        """Return the seconds of a dump.

        Args:
            work: What it has to do.
            bandwidth_bytes_s: Of the way to the store, if another than has been measured.
        """
        flow = self.flow(work, bandwidth_bytes_s)
        if np.isinf(flow.seconds):
            # A number of seconds that no window has: the machinery of intervals stays finite.
            flow = Flow(1e12, flow.stored_bytes, "store")
        return Phases(
            *(
                float(self.phases[phase].predict(np.array(_features(phase, work, flow))))
                for phase in PHASES
            )
        )

    def flow(self, work: Work, bandwidth_bytes_s: float | None = None) -> Flow:
        """Return how the pages of a dump flow to the store."""
        pipeline = self.pipeline
        if bandwidth_bytes_s is not None:
            pipeline = attrs.evolve(pipeline, store_bytes_s=bandwidth_bytes_s)
        return _flow(pipeline, work, self.ratio)


def _flow(pipeline: Pipeline, work: Work, ratio: float) -> Flow:
    return pipeline.flow(work.sent_bytes, ratio if work.ratio is None else work.ratio)


def _features(phase: str, work: Work, flow: Flow) -> tuple[float, ...]:
    if phase == "memory":
        if work.incremental:
            return 0.0, 0.0, 0.0, 0.0
        # A full dump sends a run or so for each mapping.
        return 1.0, flow.seconds, work.sent_bytes / _GB, work.mappings / 1000
    if phase == "commit":
        # Not by the bytes stored: a faster store gets more, for less is compressed.
        return 1.0, work.sent_bytes / _GB, flow.seconds
    common = (1.0, work.processes, work.threads, work.descriptors / 1000)
    if phase == "start":
        return common
    delta = (1.0, flow.seconds, work.runs / 1000) if work.incremental else (0.0, 0.0, 0.0)
    return *common, work.mappings / 1000, work.resident_bytes / _GB, *delta


def _speeds(records: Sequence[DumpRecord]) -> Pipeline:
    """Return the speeds that records show; the store's is the one of its slower half."""
    large = [
        one for one in records if one.work.sent_bytes >= _LEAST_BYTES and not one.work.incremental
    ]
    memory = [one.work.sent_bytes / one.phases.memory_s for one in large if one.phases.memory_s > 0]
    codec = [
        one.rates.codec_bytes_s * one.rates.codec_threads
        for one in large
        if one.rates.codec_bytes_s
    ]
    store = [
        one.rates.store_bytes_s
        for one in large
        if one.rates.store_bytes_s and one.stored_bytes >= _LEAST_BYTES / 4
    ]
    return Pipeline(
        # Many were held up by what comes behind; the quicker ones show what receiving takes.
        float(np.clip(np.quantile(memory, 0.8), 1e8, 1e10)) if memory else _MEMORY_BYTES_S,
        float(np.median(codec)) if codec else _CODEC_BYTES_S,
        float(np.quantile(store, 0.4)) if store else _STORE_BYTES_S,
    )
