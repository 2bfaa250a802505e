"""How fast to copy ahead: slowly enough that the task does not notice."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Pace"]

#: Never wait for longer at a time: what is slow now may be quick soon.
_LONGEST_S = 5.0


class Pace:
    """Bounds the CPU time, and the bytes, that copying takes.

    Args:
        cpu_share: The most of one CPU that it may take, 1 for all; None for no bound.
        bytes_per_s: The most bytes a second; None for no bound.
        clock: Tells the time in seconds.
        cpu_clock: Tells the CPU time that this process has taken.
    """

    def __init__(
        self,
        cpu_share: float | None = None,
        bytes_per_s: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        self._cpu_share = cpu_share
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._bounded = True
        self.begin()

    def begin(self) -> None:
        """Begin anew: what was before counts no more."""
        self._began_s = self._clock()
        self._cpu_began_s = self._cpu_clock()
        self._bytes = 0

    @contextlib.contextmanager
    def unbounded(self) -> Iterator[None]:
        """Have no bounds while the block runs: there is no time to lose."""
        self._bounded = False
        try:
            yield
        finally:
            self._bounded = True

    def pause_s(self, copied_bytes: int) -> float:
        """Return for how long to wait.

        Args:
            copied_bytes: What has been copied since the last call.
        """
        self._bytes += copied_bytes
        if not self._bounded:
            return 0.0
        due_s = 0.0
        if self._cpu_share is not None:
            due_s = (self._cpu_clock() - self._cpu_began_s) / self._cpu_share
        if self._bytes_per_s is not None:
            due_s = max(due_s, self._bytes / self._bytes_per_s)
        return min(_LONGEST_S, max(0.0, self._began_s + due_s - self._clock()))
