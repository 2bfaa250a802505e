"""The time between a notice and the end of the machine, as all sources together tell it."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Window"]


class Window:
    """What is left of the time.

    The first notice opens it.  Later ones can only make it shorter, whoever they come from; one that is taken back
    leaves what the others said.  Not thread-safe: one thread hears all notices.

    Args:
        source: Who gave the first notice.
        seconds: How long it said the machine lasts.
        clock: Tells the time in seconds, never backwards.
    """

    def __init__(
        self, source: str, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._ends = {source: clock() + seconds}
        self.source = source

    @property
    def end_s(self) -> float:
        """When the machine ends, by the clock; the earliest that anybody says."""
        return min(self._ends.values())

    @property
    def left_s(self) -> float:
        """Seconds until then, 0 afterwards."""
        return max(0.0, self.end_s - self._clock())

    @property
    def cancelled(self) -> bool:
        """Whether everybody who gave notice has taken it back."""
        return not self._ends

    def notice(self, source: str, seconds: float) -> bool:
        """Hear another notice.

        Args:
            source: Who gives it.
            seconds: How long it says the machine lasts from now.

        Returns:
            Whether the window is shorter for it.
        """
        before = self.end_s
        end = self._clock() + seconds
        self._ends[source] = min(end, self._ends.get(source, end))
        return self.end_s < before

    def cancel(self, source: str) -> bool:
        """Hear that a source takes its notice back.

        Args:
            source: Who.

        Returns:
            Whether it had given one.
        """
        return self._ends.pop(source, None) is not None
