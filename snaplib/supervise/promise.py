"""How much work is lost at most if the machine goes without a word, or before its time; and when that needs a snapshot.

Work is what a task does while it runs.  While it stands still for a dump it does none, so what counts is the time from
when it last ran on after a snapshot until it stands still for the next.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

__all__ = ["Promise"]

#: Another interval of the plan's is worth telling only if it differs by this factor; one that becomes longer at once,
#: for more can be lost then, and one that becomes shorter not more often than this.
_DIFFERS = 1.25
_TELL_AGAIN_S = 600.0
#: A plan that has no interval any more may have one again at the next look: so long its last one counts.
_KEEP_S = 60.0
#: A snapshot is given up after so long, or this share of the interval if that is longer: the task stands still for it.
_LIMIT_S = 120.0
_LIMIT_SHARE = 1 / 3
#: After one that has failed the task runs at least this long, and twice as long as it stood still in vain.
_AGAIN_S = 5.0
#: What a snapshot needs before and after the task stands still counts up to this share of the interval.
_LEAD_SHARE = 0.5


class Promise:
    """At most so many seconds of work are lost, as long as snapshots can be made.

    Args:
        every_s: The interval that was asked for; without one it is the plan's, if that has one.
        age_s: For how long the task has run already without a snapshot that is known of.
        clock: Tells the time in seconds, never backwards.
    """

    def __init__(
        self,
        every_s: float | None = None,
        *,
        age_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._asked_s = every_s
        self._planned_s: float | None = None
        self._at_s = clock() - age_s
        self._not_before_s = -math.inf
        self._lead_s = 0.0
        #: Since when the plan has had no interval.
        self._without_s = math.inf
        self._told_s: float | None = None
        self._told_at_s = -math.inf

    @property
    def most_s(self) -> float | None:
        """The seconds of work that are lost at most; None: all since the last snapshot, whenever that was."""
        return self._asked_s if self._asked_s is not None else self._planned_s

    @property
    def by(self) -> str:
        """Who wants it: ``option`` or ``plan``."""
        return "option" if self._asked_s is not None else "plan"

    @property
    def limit_s(self) -> float:
        """How long a snapshot may take."""
        return max(_LIMIT_S, (self.most_s or 0.0) * _LIMIT_SHARE)

    @property
    def unsaved_s(self) -> float:
        """For how long the task has worked since its last snapshot."""
        return self._clock() - self._at_s

    def plan(self, every_s: float | None) -> None:
        """Hear what the plan has for an interval; from any thread.

        Args:
            every_s: Between two snapshots; None if the plan has none: what it had then counts a while longer.
        """
        if every_s is None:
            self._without_s = min(self._without_s, self._clock())
            if self._clock() - self._without_s >= _KEEP_S:
                self._planned_s = None
            return
        self._without_s = math.inf
        if self._planned_s is None or _differs(self._planned_s, every_s):
            self._planned_s = every_s

    def due_s(self) -> float | None:
        """Return in how many seconds the next snapshot is to begin; None: there is to be none."""
        most_s = self.most_s
        if most_s is None:
            return None
        lead_s = min(self._lead_s, most_s * _LEAD_SHARE)
        return max(self._at_s + most_s - lead_s, self._not_before_s) - self._clock()

    def left_s(self) -> float:
        """Return how long the task may work on before more would be lost than was promised; infinite without."""
        most_s = self.most_s
        return math.inf if most_s is None else max(0.0, most_s - self.unsaved_s)

    def kept(self, took_s: float, frozen_s: float) -> None:
        """Hear that a snapshot is complete.

        Args:
            took_s: How long it took.
            frozen_s: For how much of that the task stood still.
        """
        self._at_s = self._clock()
        self._not_before_s = -math.inf
        # The task works meanwhile: the next one begins that much earlier.
        self._lead_s = max(0.0, took_s - frozen_s)

    def missed(self, took_s: float) -> None:
        """Hear that a snapshot has failed.

        Args:
            took_s: How long that took.
        """
        pause_s = max(_AGAIN_S, 2 * took_s)
        self._not_before_s = self._clock() + min(pause_s, self.most_s or pause_s)

    def is_news(self) -> bool:
        """Return whether it is another than was told last, and worth telling."""
        told_s, most_s = self._told_s, self.most_s
        if told_s is not None and most_s is not None:
            if not _differs(told_s, most_s):
                return False
            if most_s < told_s and self._clock() - self._told_at_s < _TELL_AGAIN_S:
                return False
        elif told_s == most_s:
            return False
        self._told_s, self._told_at_s = most_s, self._clock()
        return True


def _differs(one_s: float, other_s: float) -> bool:
    return not one_s / _DIFFERS < other_s < one_s * _DIFFERS
