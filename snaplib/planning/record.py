"""What to do for a task."""

from __future__ import annotations

from typing import Literal

import attrs

from snaplib.forecasting import Forecast, Interval, StrategyForecast
from snaplib.planning.cadence import DEFAULT_LEVEL

__all__ = ["Plan", "Strategy", "make_plan"]

Strategy = Literal["full", "warm", "timer", "give-up"]


@attrs.frozen
class Plan:
    """What to do for a task, and why.

    Attributes:
        strategy: ``full``: one dump when the notice comes. ``warm``: copies ahead, and a dump of what has
            changed since when the notice comes. ``timer``: the window is too short; whole snapshots while
            there is no notice. ``give-up``: no way to save it is known.
        reasons: Sentences, with the figures that they rest on.
        next_copy_s: Seconds from now until the next copy, or snapshot of a timer, is due; None if none is.
        every_s: Between two copies, or snapshots of a timer, if the task goes on as it does; None without.
        step: What is expected of the last step if the notice came now; None where nothing is to be tried.
        fits: The probability that the task is saved if the notice came now.
        fits_then: The same once the plan is under way.
        window_s: The window that it is made for.
        rounds: Copies after the notice, before the last step: none, for they would move at least what a dump
            at once moves. See `snaplib.forecasting.Forecast.best`.
        codec: ``auto``, or ``zstd`` to compress everything.
        level: The level of the codec.
        copy_bytes_s: What copies move, in bytes a second over time.
    """

    strategy: Strategy
    reasons: tuple[str, ...]
    next_copy_s: float | None
    every_s: float | None
    step: StrategyForecast | None
    fits: float
    fits_then: float
    window_s: float
    rounds: int = 0
    codec: Literal["auto", "zstd"] = "auto"
    level: int = DEFAULT_LEVEL
    copy_bytes_s: float = 0.0

    @property
    def duration_s(self) -> Interval | None:
        """How long the last step takes if the notice came now."""
        return None if self.step is None else self.step.duration_s


def make_plan(
    forecast: Forecast,
    strategy: Strategy,
    reasons: list[str],
    *,
    step: StrategyForecast | None,
    fits: float,
    fits_then: float,
    next_copy_s: float | None = None,
    every_s: float | None = None,
    copy_bytes_s: float = 0.0,
) -> Plan:
    """Return a plan for what was forecast; see `Plan` for the arguments."""
    return Plan(
        strategy=strategy,
        reasons=tuple(reasons),
        next_copy_s=next_copy_s,
        every_s=every_s,
        step=step,
        fits=fits,
        fits_then=fits_then,
        window_s=forecast.window_s,
        rounds=0 if step is None else step.copies,
        copy_bytes_s=copy_bytes_s,
    )
