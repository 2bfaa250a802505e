"""How large a dump will be, how long it will take, and whether it will fit the window."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs

from snaplib.arguments import number
from snaplib.errors import UsageError
from snaplib.forecasting.curve import DirtyCurve
from snaplib.forecasting.durations import PHASES
from snaplib.forecasting.interval import Interval
from snaplib.forecasting.models import Models
from snaplib.forecasting.strategies import (
    ROUND_S,
    CompressionSample,
    Forecast,
    StepName,
    StrategyForecast,
)
from snaplib.forecasting.work import Work

if TYPE_CHECKING:
    from snaplib.observe import Profile

__all__ = ["forecast_with", "work_of"]

#: Rounds of warm copies after a notice that are looked at.
_ROUNDS = 3
#: USER_HZ, which is the same on all architectures that there are kernels for.
_TICKS_A_SECOND = 100


def work_of(profile: Profile, sample: CompressionSample | None = None) -> Work:
    """Return what a full dump of a task has to do.

    Args:
        profile: What a watch knows of it.
        sample: How well its memory compresses.
    """
    return Work(
        processes=max(len(profile.members), 1),
        threads=max(profile.threads, 1),
        descriptors=len(profile.descriptors),
        mappings=profile.memory.mappings,
        resident_bytes=profile.resident_bytes,
        sent_bytes=profile.dumpable_bytes,
        ratio=None if sample is None else min(max(sample.ratio, 0.0), 1.0),
        codec_bytes_s=None if sample is None else sample.codec_bytes_s,
    )


def forecast_with(
    models: Models,
    profile: Profile,
    *,
    window_s: float = 120.0,
    bandwidth_bytes_s: float | None = None,
    sample: CompressionSample | None = None,
    warm_age_s: float | None = None,
    warm_dirty_bytes: float | None = None,
) -> Forecast:
    """Forecast what saving a task takes.

    Args:
        models: What was learned of the host and the store.
        profile: What a watch knows of the task.
        window_s: Seconds from the notice to the end of the machine.
        bandwidth_bytes_s: Of the way to the store, if another than was measured is to be supposed.
        sample: How well the task's memory compresses.
        warm_age_s: How old the warm copy is that a delta can build on; None without one.
        warm_dirty_bytes: What that copy misses now, where it has been counted; by the curve otherwise.

    Raises:
        UsageError: A number is none, or negative; an age may be, where a clock was set back.
    """
    _check("window", window_s, "s")
    if warm_age_s is not None:
        number("warm_age_s", warm_age_s)
    if warm_dirty_bytes is not None:
        number("warm_dirty_bytes", warm_dirty_bytes, finite=True)
    if bandwidth_bytes_s is not None:
        _check("bandwidth", bandwidth_bytes_s, "bytes/s")
    curve = DirtyCurve.of(profile)
    work = work_of(profile, sample)
    growth_bytes_s = max(profile.growth_bytes_s or 0.0, 0.0)
    if growth_bytes_s:
        # It grows until it is frozen.
        grown = growth_bytes_s * models.durations.phases_of(work).start_s
        work = attrs.evolve(
            work,
            sent_bytes=work.sent_bytes + grown,
            resident_bytes=work.resident_bytes + grown,
        )
    run_bytes = _run_bytes(profile)
    maker = _Maker(models, curve, work, window_s, bandwidth_bytes_s, run_bytes)
    strategies = [maker.step("full", work.sent_bytes, 0, 0.0, 0.0)]
    # A copy made in the future, by a clock that was set back, is one made now.
    age_s = None if warm_age_s is None else max(warm_age_s, 0.0)
    missing = work.sent_bytes
    if age_s is not None:
        missing = curve.at(age_s) if warm_dirty_bytes is None else max(warm_dirty_bytes, 0.0)
        strategies.append(
            maker.step("delta", missing, 0, 0.0, 0.0, counted=warm_dirty_bytes is not None)
        )
    strategies += maker.rounds(missing)
    return Forecast(
        window_s=window_s,
        strategies=tuple(strategies),
        curve=curve,
        work=work,
        models=models,
        bandwidth_bytes_s=bandwidth_bytes_s,
        warm_age_s=age_s,
        run_bytes=run_bytes,
        growth_bytes_s=growth_bytes_s,
        running_s=_running_s(profile),
        notes=(*models.notes, *_notes(profile, curve, sample)),
    )


def _running_s(profile: Profile) -> float:
    if not profile.members:
        return math.inf
    # Since boot, as CLOCK_MONOTONIC but for the time that the machine slept.
    began_s = min(member.start_ticks for member in profile.members) / _TICKS_A_SECOND
    return max(profile.monotonic_s - began_s, 0.0)


def _run_bytes(profile: Profile) -> float:
    written = profile.dirty_rate_bytes_s * profile.interval_s
    return written / profile.dirty_runs if profile.dirty_runs > 0 and written > 0 else 0.0


def _check(name: str, value: float, unit: str) -> None:
    if not hasattr(type(value), "__float__"):
        number(f"the {name}", value)
    if math.isnan(value) or value < 0:
        raise UsageError(f"a {name} of {value} {unit} is none", hint="give a number, 0 or more")


def _notes(profile: Profile, curve: DirtyCurve, sample: CompressionSample | None) -> list[str]:
    notes = []
    if curve.lower_bound and profile.dirty_basis != "faults":
        notes.append(
            "writes have not been watched yet: what a warm copy would miss is not known, and all memory "
            "counts as written"
        )
    elif curve.lower_bound:
        notes.append(
            "only first touches of pages are seen: what a warm copy would miss is not known, "
            "and all memory counts as written; watch it armed"
        )
    elif curve.known_s < 5:
        notes.append(
            f"writes have been watched for {curve.known_s:.1f} s only: what happens over a longer time is a guess"
        )
    if sample is None and profile.dumpable_bytes:
        notes.append("no page was compressed to see how well the memory compresses")
    return notes


@attrs.frozen
class _Maker:
    """Makes the forecasts of single strategies."""

    models: Models
    curve: DirtyCurve
    work: Work
    window_s: float
    bandwidth_bytes_s: float | None
    run_bytes: float

    def rounds(self, first_bytes: float) -> list[StrategyForecast]:
        """Return what one, two, ... warm copies after the notice make of it.

        They move at least as much as a dump at once would: what they shorten is the time that the task
        stands still.
        """
        found = []
        copied, spent_s, to_copy = 0.0, 0.0, first_bytes
        for copies in range(1, _ROUNDS + 1):
            # What is copied takes as long as in a dump.
            work = attrs.evolve(self.work, sent_bytes=to_copy)
            round_s = ROUND_S + self.models.durations.pages_s(work, self.bandwidth_bytes_s)
            copied += to_copy
            spent_s += round_s
            to_copy = self.curve.at(round_s)
            found.append(self.step("warm", to_copy, copies, copied, spent_s))
        return found

    def step(
        self,
        name: StepName,
        sent: float,
        copies: int,
        copied: float,
        copy_s: float,
        *,
        counted: bool = False,
    ) -> StrategyForecast:
        """Return the forecast of a last step behind so many copies."""
        incremental = name != "full"
        models, limit = self.models, self.curve.limit_bytes
        spread = models.delta if incremental else models.full
        if incremental and self.curve.lower_bound and not counted:
            size = Interval(min(sent, limit), limit, limit)
        else:
            size = spread.around(sent)
            if incremental:
                size = size.at_most(limit)
        work = attrs.evolve(
            self.work,
            sent_bytes=size.median,
            runs=size.median / self.run_bytes if incremental and self.run_bytes else 0.0,
            incremental=incremental,
        )
        # The normaliser must not depend on the bandwidth, as what is left after copies does.
        scatter = models.normaliser_of(self.work if copies else work)
        if incremental:
            scatter = math.hypot(scatter, models.delta.scale / models.duration.scale)
        phases = models.durations.phases_of(work, self.bandwidth_bytes_s)
        total_s = copy_s + phases.total_s
        duration = models.duration.around(total_s, scatter)
        flow = models.durations.flow(work, self.bandwidth_bytes_s)
        # Without a sample the ratio is anything.
        stored = (
            models.stored.around(flow.stored_bytes)
            if work.ratio is not None
            else Interval(0.05 * flow.stored_bytes, flow.stored_bytes, size.median)
        )
        return StrategyForecast(
            name=name,
            copies=copies,
            copied_bytes=copied,
            size_bytes=size,
            stored_bytes=stored.at_most(max(size.high, stored.low)),
            copy_s=copy_s,
            phases={
                phase: models.phase[phase].around(getattr(phases, f"{phase}_s")) for phase in PHASES
            },
            frozen_s=models.duration.around(phases.frozen_s),
            duration_s=duration,
            fits=models.duration.below(total_s, self.window_s, scatter),
            binds=flow.binds,
            codec_bytes_s=work.codec_bytes_s,
        )
