"""How long each phase of a dump takes, fitted to dumps that were made."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np
import numpy.typing as npt

from snaplib.arrays import quantile
from snaplib.forecasting.pipeline import WORTH, Flow, Pipeline
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

#: The same of all phases together: a dump, a process, a second of the pipeline, and what a second of it takes
#: longer in a delta.
_TOTAL_PRIOR = (0.15, 0.04, 1.15, 0.2)
_FLOW = 2

#: Speeds before anything was measured, in bytes a second.
_MEMORY_BYTES_S = 1.5e9
_CODEC_BYTES_S = 4e8
#: One thread with a sample of a usual task, before anything was measured, and by how much a task may differ.
_SAMPLED_BYTES_S = 3.5e8
_MOST_OFF = 5.0
_STORE_BYTES_S = 5e8
_HELD_UP_S = 0.6e-9
_MOST_HELD_UP_S = 3e-9
#: What a commit takes with nothing left to write.
_COMMIT_S = 0.08
#: Smaller dumps say nothing of speeds.
_LEAST_BYTES = 16e6
_RATIO = 0.5
#: With fewer dumps than this it is not learned how the codec is held up; nor from those that compressed more.
_FEW = 5
_ALL = 0.9


@attrs.frozen
class DurationModel:
    """Predicts seconds by phase.

    Attributes:
        pipeline: The speeds of the way to the store, as they are when all of it is at work.
        total: A regression for all phases together: what one takes longer the next often takes less, so their
            sum is known better than each of them.
        phases: A regression for each phase, which shares the total out.
        ratio: What the codec leaves of a byte, where a task's own ratio is not known.
        sampled_bytes_s: How fast one thread compresses a sample of a task with which the codec is as fast as
            in the pipeline.
        count: How many dumps are behind it.
    """

    pipeline: Pipeline
    total: Regression
    phases: dict[str, Regression]
    ratio: float = _RATIO
    sampled_bytes_s: float = _SAMPLED_BYTES_S
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
        ratio = quantile(ratios, 0.5) if ratios else _RATIO
        sampled = _sampled_bytes_s(records)
        pipeline, total = _total(_speeds(records, sampled), records, ratio, sampled, weights)
        local = [*elsewhere, *records]
        both = None if weights is None else np.append(np.full(len(elsewhere), 0.5), weights)
        fitted = {}
        for phase in PHASES:
            rows = local if phase in ("start", "walk") else list(records)
            counts = both if phase in ("start", "walk") else weights
            features = np.array(
                [
                    _features(phase, one.work, _flow(pipeline, one.work, ratio, sampled))
                    for one in rows
                ]
            ).reshape(len(rows), len(_PRIORS[phase]))
            seconds = np.array([getattr(one.phases, f"{phase}_s") for one in rows], np.float64)
            fitted[phase] = Regression.fit(features, seconds, np.array(_PRIORS[phase]), counts)
        return cls(pipeline, total, fitted, ratio, sampled, len(records))

    def phases_of(self, work: Work, bandwidth_bytes_s: float | None = None) -> Phases:
        """Return the seconds of a dump.

        Args:
            work: What it has to do.
            bandwidth_bytes_s: Of the way to the store, if another than has been measured.
        """
        flow = _finite(self.flow(work, bandwidth_bytes_s))
        seconds = [
            float(self.phases[phase].predict(np.array(_features(phase, work, flow))))
            for phase in PHASES
        ]
        total_s = float(self.total.predict(np.array(_total_features(work, flow))))
        share = total_s / max(sum(seconds), 1e-9)
        return Phases(*(one * share for one in seconds))

    def pages_s(self, work: Work, bandwidth_bytes_s: float | None = None) -> float:
        """Return how long the pages alone take, as in a copy while the task runs: never longer than a dump.

        Args:
            work: What there is to send.
            bandwidth_bytes_s: Of the way to the store, if another than has been measured.
        """
        return _finite(self.flow(work, bandwidth_bytes_s)).seconds

    def flow(self, work: Work, bandwidth_bytes_s: float | None = None) -> Flow:
        """Return how the pages of a dump flow to the store."""
        pipeline = self.pipeline
        if bandwidth_bytes_s is not None:
            pipeline = attrs.evolve(pipeline, store_bytes_s=bandwidth_bytes_s)
        return _flow(pipeline, work, self.ratio, self.sampled_bytes_s)


def _finite(flow: Flow) -> Flow:
    """Return it with a number of seconds that no window has for infinity: intervals stay finite."""
    return Flow(1e12, flow.stored_bytes, "store") if np.isinf(flow.seconds) else flow


def _flow(pipeline: Pipeline, work: Work, ratio: float, sampled_bytes_s: float) -> Flow:
    if work.codec_bytes_s is not None:
        faster = min(max(work.codec_bytes_s / sampled_bytes_s, 1 / _MOST_OFF), _MOST_OFF)
        pipeline = attrs.evolve(pipeline, codec_bytes_s=pipeline.codec_bytes_s * faster)
    return pipeline.flow(work.sent_bytes, ratio if work.ratio is None else work.ratio)


def _sampled_bytes_s(records: Sequence[DumpRecord]) -> float:
    """Return how fast samples of the tasks were of which the pipeline's speed is."""
    speeds = [
        one.work.codec_bytes_s
        for one in records
        if one.work.codec_bytes_s and one.rates.codec_bytes_s and _tells_of_speed(one)
    ]
    return quantile(speeds, 0.5) if speeds else _SAMPLED_BYTES_S


def _tells_of_speed(record: DumpRecord) -> bool:
    return record.work.sent_bytes >= _LEAST_BYTES and not record.work.incremental


def _total_features(work: Work, flow: Flow) -> tuple[float, ...]:
    return 1.0, work.processes, flow.seconds, flow.seconds if work.incremental else 0.0


def _total(
    measured: Pipeline,
    records: Sequence[DumpRecord],
    ratio: float,
    sampled_bytes_s: float,
    weights: FloatArray | None,
) -> tuple[Pipeline, Regression]:
    """Return the costs of whole dumps, and the speeds at which a second of the pipeline costs a second.

    Each stage is slower beside the others than where it was measured by itself. A bandwidth that is given
    later takes the place of the store's speed, and must not be corrected by what this store's showed.
    """
    features = np.array(
        [
            _total_features(one.work, _flow(measured, one.work, ratio, sampled_bytes_s))
            for one in records
        ]
    ).reshape(len(records), len(_TOTAL_PRIOR))
    seconds = np.array([one.phases.total_s for one in records], np.float64)
    total = Regression.fit(features, seconds, np.array(_TOTAL_PRIOR), weights)
    slower = max(float(total.coefficients[_FLOW]), 0.1)
    coefficients = total.coefficients.copy()
    coefficients[_FLOW:] /= slower
    at_work = Pipeline(
        measured.memory_bytes_s / slower,
        measured.codec_bytes_s / slower,
        measured.store_bytes_s / slower,
        measured.held_up_s * slower,
    )
    return at_work, attrs.evolve(total, coefficients=coefficients)


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


def _speeds(records: Sequence[DumpRecord], sampled_bytes_s: float) -> Pipeline:
    """Return the speeds that records show; the codec's with a task whose sample was of the given speed."""
    large = [one for one in records if _tells_of_speed(one)]
    memory = [one.work.sent_bytes / one.phases.memory_s for one in large if one.phases.memory_s > 0]
    codec = [
        one.rates.codec_bytes_s
        * one.rates.codec_threads
        * (sampled_bytes_s / (one.work.codec_bytes_s or sampled_bytes_s))
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
        float(np.clip(quantile(memory, 0.95), 1e8, 1e10)) if memory else _MEMORY_BYTES_S,
        quantile(codec, 0.5) if codec else _CODEC_BYTES_S,
        quantile(store, 0.5) if store else _STORE_BYTES_S,
        _held_up_s(large),
    )


def _held_up_s(records: Sequence[DumpRecord]) -> float:
    """Return for how long the codec waits for each byte received: what is left of the time it had."""
    found = []
    for one in records:
        ratio, codec_bytes_s = one.work.ratio, one.rates.codec_bytes_s
        if ratio is None or ratio >= WORTH or not codec_bytes_s:
            continue
        sent = one.work.sent_bytes
        share = (1 - one.stored_bytes / sent) / (1 - ratio)
        if not 0 <= share < _ALL:
            # Where all is compressed the codec may well have waited for the store.
            continue
        took_s = max(one.phases.memory_s + one.phases.commit_s - _COMMIT_S, 0.0)
        busy_s = share * sent / (codec_bytes_s * max(one.rates.codec_threads, 1))
        found.append(max(took_s - busy_s, 0.0) / sent)
    if len(found) < _FEW:
        return _HELD_UP_S
    return min(quantile(found, 0.5), _MOST_HELD_UP_S)
