"""When to stop waiting: some time after a limit that may move while one waits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Grace"]


class Grace:
    """One wait.  A limit that is passed for a moment only, because another takes its place, ends nothing.

    Args:
        clock: Tells the time in seconds, never backwards.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._passed_s: float | None = None

    def is_over(self, limit: Callable[[], float] | None, grace_s: float) -> bool:
        """Return whether the limit has been passed for long enough; to be asked again and again.

        Args:
            limit: Tells how many seconds are left; None where there is no limit.
            grace_s: How long is long enough.
        """
        if limit is None or limit() > 0:
            self._passed_s = None
            return False
        now_s = self._clock()
        if self._passed_s is None:
            self._passed_s = now_s
        return now_s - self._passed_s >= grace_s
