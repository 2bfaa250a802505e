"""How a strategy would go, step by step, once the notice has come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import attrs

from snaplib.forecasting import Forecast

__all__ = ["Course", "Step", "at_once", "like_phaul"]

_PAGE_BYTES = 4096

#: P.Haul's three rules (phaul/iters.py): so many rounds, so few pages, growth of so much end the copying.
_PHAUL_ROUNDS = 8
_PHAUL_PAGES = 64
_PHAUL_GROWTH = 0.10

#: Tells how many bytes are written between two times, in seconds after the notice.
DirtyBetween = Callable[[float, float], float]


@attrs.frozen
class Step:
    """A copy or the last step.

    Attributes:
        kind: ``copy`` while the task runs, ``dump`` while it stands still.
        begins_s: Seconds after the notice.
        takes_s: How long.
        moved_bytes: Memory that it moves.
    """

    kind: Literal["copy", "dump"]
    begins_s: float
    takes_s: float
    moved_bytes: float


@attrs.frozen
class Course:
    """All steps after a notice.

    Attributes:
        steps: In their order; the last is the dump.
        saved: The probability that the last one ends within the window.
    """

    steps: tuple[Step, ...]
    saved: float

    @property
    def done_s(self) -> float:
        """When the snapshot is durable, in seconds after the notice."""
        last = self.steps[-1]
        return last.begins_s + last.takes_s

    @property
    def frozen_s(self) -> float:
        """How long the task stands still."""
        return self.steps[-1].takes_s

    @property
    def moved_bytes(self) -> float:
        """Memory moved after the notice."""
        return sum(step.moved_bytes for step in self.steps)


def at_once(forecast: Forecast, missing_bytes: float | None) -> Course:
    """Return the course of a dump at once.

    Args:
        forecast: Of the task at the notice.
        missing_bytes: What the warm copy misses; None where there is none.
    """
    if missing_bytes is None:
        moved = forecast.work.sent_bytes
        models = forecast.models
        takes_s = models.durations.phases_of(forecast.work, forecast.bandwidth_bytes_s).total_s
        saved = forecast.full.fits
    else:
        moved = missing_bytes
        takes_s = forecast.delta_s(moved)
        saved = forecast.delta_fits(moved, forecast.window_s)
    return Course((Step("dump", 0.0, takes_s, moved),), saved)


def like_phaul(
    forecast: Forecast, dirty_between: DirtyBetween, missing_bytes: float | None = None
) -> Course:
    """Return the course by P.Haul's rules, which know neither of the window nor of the bandwidth.

    Copies follow one another until at most 64 pages were left to copy, or a copy was more than a tenth
    larger than the one before, or there were 8; then comes the dump of what the last one misses.

    Args:
        forecast: Of the task at the notice.
        dirty_between: Tells what is written between two times after it.
        missing_bytes: What the warm copy misses; None where there is none.
    """
    steps: list[Step] = []
    now_s = 0.0
    to_copy = forecast.work.sent_bytes if missing_bytes is None else missing_bytes
    before: float | None = None
    while True:
        takes_s = forecast.copy_s(to_copy)
        steps.append(Step("copy", now_s, takes_s, to_copy))
        left = dirty_between(now_s, now_s + takes_s)
        now_s += takes_s
        grown = before is not None and to_copy > before * (1 + _PHAUL_GROWTH)
        if (
            to_copy <= _PHAUL_PAGES * _PAGE_BYTES
            or grown
            or len(steps) >= _PHAUL_ROUNDS
            # Nothing stops P.Haul here; what is beyond the window is lost anyhow.
            or now_s > forecast.window_s
        ):
            break
        before, to_copy = to_copy, left
    takes_s = forecast.delta_s(left)
    steps.append(Step("dump", now_s, takes_s, left))
    saved = forecast.delta_fits(left, forecast.window_s, now_s)
    return Course(tuple(steps), saved)
