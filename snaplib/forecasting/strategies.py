"""What each way of saving a task would take, side by side."""

from __future__ import annotations

import math
from typing import Literal

import attrs

from snaplib.forecasting.curve import DirtyCurve
from snaplib.forecasting.interval import Interval
from snaplib.forecasting.models import Models
from snaplib.forecasting.work import Work

__all__ = ["ROUND_S", "SURE", "CompressionSample", "Forecast", "StepName", "StrategyForecast"]

#: A step counts as safe from this probability on.
SURE = 0.999
#: Stopping and scanning for a round of copying, whatever is copied.
ROUND_S = 0.05

StepName = Literal["full", "delta", "warm"]


@attrs.frozen
class CompressionSample:
    """What the codec made of some pages of the task.

    Attributes:
        ratio: Bytes after, for a byte before; from 0 to 1.
        sampled_bytes: How many were looked at.
        codec_bytes_s: How fast one thread was, by bytes before, in seconds of its CPU.
        level: The codec's level.
    """

    ratio: float
    sampled_bytes: int = 0
    codec_bytes_s: float | None = None
    level: int = -1


@attrs.frozen
class StrategyForecast:
    """What one way of saving the task would take if the notice came now.

    Attributes:
        name: ``full``: one dump of everything. ``delta``: a dump of what changed since the warm copy there
            is. ``warm``: further warm copies within the window, then the delta.
        copies: Warm copies within the window.
        copied_bytes: Memory that they copy while the task runs.
        size_bytes: Memory in the last step, for which the task stands still.
        stored_bytes: What the store takes of the last step.
        copy_s: How long the copies take.
        phases: The last step by phase: ``start``, ``walk``, ``memory``, ``commit``.
        frozen_s: How long the task stands still.
        duration_s: From the notice until the snapshot is durable.
        fits: The probability that this is within the window.
        binds: What the pages of the last step wait for: ``memory``, ``codec`` or ``store``.
        codec_bytes_s: How fast one thread compressed a sample of the memory; None where nobody has looked.
    """

    name: StepName
    copies: int
    copied_bytes: float
    size_bytes: Interval
    stored_bytes: Interval
    copy_s: float
    phases: dict[str, Interval]
    frozen_s: Interval
    duration_s: Interval
    fits: float
    binds: Literal["memory", "codec", "store"]
    codec_bytes_s: float | None = None


@attrs.frozen
class Forecast:
    """All strategies side by side.

    Attributes:
        window_s: The window that they are to fit.
        strategies: The first is always ``full``.
        curve: What a copy misses, by its age.
        work: What a full dump would have to do.
        models: What was learned of this host and store.
        bandwidth_bytes_s: Of the way to the store, if it was given.
        warm_age_s: How old the warm copy is; None without one.
        run_bytes: How much of what is written lies together, on average; 0 where that is not known.
        growth_bytes_s: By how much memory grows a second; 0 where it does not, or that is not known.
        running_s: For how long the task has run; infinite where that is not known.
        notes: What restricts the figures, a sentence each.
    """

    window_s: float
    strategies: tuple[StrategyForecast, ...]
    curve: DirtyCurve
    work: Work
    models: Models
    bandwidth_bytes_s: float | None = None
    warm_age_s: float | None = None
    run_bytes: float = 0.0
    growth_bytes_s: float = 0.0
    running_s: float = math.inf
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> StrategyForecast:
        """A dump at once: the one that most likely fits, of equals the quicker.

        Copies after the notice are none of them: they move the same bytes and more, and what they shorten is
        the time that the task stands still.
        """
        at_once = [one for one in self.strategies if not one.copies]
        return min(at_once, key=lambda one: (-one.fits, one.duration_s.median))

    @property
    def full(self) -> StrategyForecast:
        """One dump of everything."""
        return self.strategies[0]

    @property
    def store_bytes_s(self) -> float:
        """The bandwidth to the store that the figures rest on."""
        if self.bandwidth_bytes_s is not None:
            return self.bandwidth_bytes_s
        return self.models.durations.pipeline.store_bytes_s

    def full_fits(self, later_s: float) -> float:
        """Return the probability that a full dump will fit the window after some time of growth.

        Args:
            later_s: The time.
        """
        grown = self.growth_bytes_s * later_s
        work = attrs.evolve(
            self.work,
            sent_bytes=self.models.full.around(self.work.sent_bytes + grown).median,
            resident_bytes=self.work.resident_bytes + grown,
        )
        total_s = self.models.durations.phases_of(work, self.bandwidth_bytes_s).total_s
        return self.models.duration.below(total_s, self.window_s, self.models.normaliser_of(work))

    def delta_fits(self, dirty_bytes: float, left_s: float, behind_s: float = 0.0) -> float:
        """Return the probability that a delta of so much memory is saved within a time.

        Args:
            dirty_bytes: The memory.
            left_s: The time.
            behind_s: What comes before it, as uncertain as itself.
        """
        work = self.delta_work(dirty_bytes)
        scatter = math.hypot(
            self.models.normaliser_of(work), self.models.delta.scale / self.models.duration.scale
        )
        total_s = self.models.durations.phases_of(work, self.bandwidth_bytes_s).total_s
        return self.models.duration.below(behind_s + total_s, left_s, scatter)

    def delta_s(self, dirty_bytes: float) -> float:
        """Return how long a delta of so much memory takes."""
        work = self.delta_work(dirty_bytes)
        return self.models.durations.phases_of(work, self.bandwidth_bytes_s).total_s

    def copy_s(self, copied_bytes: float) -> float:
        """Return how long a warm copy of so much memory takes."""
        work = attrs.evolve(self.work, sent_bytes=copied_bytes)
        return ROUND_S + self.models.durations.pages_s(work, self.bandwidth_bytes_s)

    def delta_work(self, dirty_bytes: float) -> Work:
        """Return what a delta of so much memory has to do."""
        return attrs.evolve(
            self.work,
            sent_bytes=dirty_bytes,
            runs=dirty_bytes / self.run_bytes if self.run_bytes else 0.0,
            incremental=True,
        )
