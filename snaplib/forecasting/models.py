"""All that has been learned of dumps on a host and to a store, ready to forecast with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import numpy as np
import numpy.typing as npt

from snaplib.arrays import distinct, quantile
from snaplib.forecasting.durations import DurationModel
from snaplib.forecasting.interval import Interval
from snaplib.forecasting.spread import Spread
from snaplib.forecasting.work import DumpRecord, Phases, Work

__all__ = ["FEW", "Models", "normaliser"]

FloatArray = npt.NDArray[np.float64]

#: With fewer dumps than this intervals are wide, and it is said.
FEW = 10
#: No more dumps than this are learned from: the newest.
_MOST = 600
#: The weight of a dump halves with so many later ones: a host changes.
_HALF_LIFE = 250.0
#: Programs are put together into so many groups at most, to find out how far off forecasts are.
_GROUPS = 12

_PRIOR_DURATION = 0.30
_PRIOR_FULL = 0.02
_PRIOR_DELTA = 0.20
_PRIOR_STORED = 0.25
#: Short dumps scatter by a share of this.
_SHORT_S = 0.25


def normaliser(local_s: float) -> float:
    """Return by how much more than a long dump one scatters that takes so long on a fast store."""
    return math.hypot(1.0, _SHORT_S / max(local_s, 1e-3))


@attrs.frozen
class Models:
    """What was learned from records.

    Attributes:
        durations: Seconds by phase.
        duration: How far off those were for programs that had not been seen.
        phase: The same for each phase.
        full: How far off the size of full dumps was, in bytes of memory.
        delta: The same of incremental ones.
        stored: How far off the bytes in the store were.
        bandwidth_bytes_s: Of the store: median, and bounds from the measured spread.
        count: Dumps on this host to this store.
        calibrated: How many of them were made to measure.
        foreign: Records of other hosts, which were left out.
        notes: What restricts the forecasts, a sentence each.
    """

    durations: DurationModel
    duration: Spread
    phase: dict[str, Spread]
    full: Spread
    delta: Spread
    stored: Spread
    bandwidth_bytes_s: Interval
    count: int = 0
    calibrated: int = 0
    foreign: int = 0
    notes: tuple[str, ...] = ()

    @classmethod
    def learn(
        cls, records: Sequence[DumpRecord] = (), *, host: str = "", store: str = ""
    ) -> Models:
        """Learn.

        Args:
            records: Dumps that were made, anywhere, in any order.
            host: The identity of the host that is forecast for.
            store: The identity of the store.
        """
        # The order in which they were noted counts where the clock was set back.
        here = [one for one in records if one.host == host][-_MOST:]
        mine = [one for one in here if one.store == store]
        others = [one for one in here if one.store != store]
        ages = np.arange(len(mine))[::-1]
        weights = 0.5 ** (ages / _HALF_LIFE)
        durations = DurationModel.fit(mine, others, weights)
        held_out = _held_out(mine, others, weights)
        foreign = sum(one.host != host for one in records)
        calibrated = sum(one.origin == "calibration" for one in mine)
        return cls(
            durations=durations,
            duration=Spread.learn(_duration_errors(held_out), _PRIOR_DURATION),
            phase={
                name: Spread.learn(
                    [
                        _log(
                            getattr(one.phases, f"{name}_s") + 1e-3,
                            getattr(phases, f"{name}_s") + 1e-3,
                        )
                        for one, phases, _ in held_out
                    ],
                    2 * _PRIOR_DURATION,
                )
                for name in durations.phases
            },
            full=Spread.learn(_size_errors(here, incremental=False), _PRIOR_FULL),
            delta=Spread.learn(_size_errors(here, incremental=True), _PRIOR_DELTA),
            stored=Spread.learn(
                [
                    _log(one.stored_bytes, stored)
                    for one, _, stored in held_out
                    if one.work.ratio is not None and one.work.sent_bytes > 4e6
                ],
                _PRIOR_STORED,
            ),
            bandwidth_bytes_s=_bandwidth(mine, durations),
            count=len(mine),
            calibrated=calibrated,
            foreign=foreign,
            notes=_notes(len(mine), calibrated, foreign, len(others)),
        )

    def normaliser_of(self, work: Work) -> float:
        """Return by how much more than a long dump this one scatters.

        It is by the time on the store as it was measured: a bandwidth that is supposed must not change it,
        or more of it could lower the probability of fitting.
        """
        return normaliser(self.durations.phases_of(work).total_s)


def _log(truth: float, forecast: float) -> float:
    return math.log(max(truth, 1e-9) / max(forecast, 1e-9))


def _held_out(
    mine: Sequence[DumpRecord], others: Sequence[DumpRecord], weights: FloatArray
) -> list[tuple[DumpRecord, Phases, float]]:
    """Return each dump with what would have been forecast for it, its program never having been seen."""
    programs = sorted({one.program for one in mine})
    # One program alone is split into parts that lie apart in time.
    if len(programs) > 1:
        group_of = {program: number % _GROUPS for number, program in enumerate(programs)}
        groups = np.array([group_of[one.program] for one in mine])
    else:
        groups = np.arange(len(mine)) * 5 // max(len(mine), 1)
    found: dict[int, tuple[DumpRecord, Phases, float]] = {}
    for group in distinct(groups):
        rest = np.flatnonzero(groups != group).tolist()
        model = DurationModel.fit([mine[at] for at in rest], others, weights[rest])
        for at in np.flatnonzero(groups == group).tolist():
            record = mine[at]
            phases = model.phases_of(record.work)
            found[at] = record, phases, model.flow(record.work).stored_bytes
    return [found[at] for at in sorted(found)]


def _duration_errors(held_out: Sequence[tuple[DumpRecord, Phases, float]]) -> FloatArray:
    """Return logarithmic errors as they would be if all dumps were long."""
    errors = np.array([_log(one.phases.total_s, phases.total_s) for one, phases, _ in held_out])
    if not errors.size:
        return errors
    middle = quantile(errors, 0.5)
    scatters = np.array([normaliser(phases.total_s) for _, phases, _ in held_out])
    return np.asarray(middle + (errors - middle) / scatters, np.float64)


def _size_errors(records: Sequence[DumpRecord], *, incremental: bool) -> list[float]:
    return [
        _log(one.work.sent_bytes, one.promise.size_bytes.median)
        for one in records
        if one.promise is not None
        # The tasks of a calibration hold still.
        and one.origin == "dump"
        and one.work.incremental == incremental
        and one.promise.size_bytes.median > 0
        and one.work.sent_bytes > 0
    ]


def _bandwidth(records: Sequence[DumpRecord], durations: DurationModel) -> Interval:
    measured = [one.rates.store_bytes_s for one in records if one.rates.store_bytes_s]
    known = durations.pipeline.store_bytes_s
    if len(measured) < 3:
        return Interval(known / 3, known, known * 3)
    low, middle, high = (quantile(measured, share) for share in (0.025, 0.5, 0.975))
    return Interval(low, middle, high)


def _notes(count: int, calibrated: int, foreign: int, elsewhere: int) -> tuple[str, ...]:
    notes = []
    if not count:
        notes.append(
            "no dump was ever made from this host to this store: the figures are those of another host, "
            "and may be off by a factor of two; run `snaplib calibrate`"
        )
    elif count - calibrated < FEW:
        notes.append(
            f"learned from {count - calibrated} dumps and {calibrated} of a calibration: the intervals are wide"
        )
    if foreign:
        notes.append(f"{foreign} dumps of other kinds of hosts were left out")
    if elsewhere and not count:
        notes.append(f"{elsewhere} dumps to other stores tell of all but the way to this one")
    return tuple(notes)
