"""How fast to copy ahead: slowly enough that the task does not notice."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Pace"]

#: Never wait for longer at a time for the sake of the CPU: what is slow now may be quick soon.
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
        self._bounds_cpu = self._bounds_bytes = True
        #: When as much may have been copied as has been.
        self._paid_s = clock()
        self.begin()

    def begin(self) -> None:
        """Begin anew: the CPU time that was taken before counts no more."""
        self._began_s = self._clock()
        self._cpu_began_s = self._cpu_clock()

    def any_cpu_share(self) -> contextlib.AbstractContextManager[None]:
        """Have no bound of CPU time while a block runs."""
        return self._with_bounds(cpu=False, of_bytes=True)

    def unbounded(self) -> contextlib.AbstractContextManager[None]:
        """Have no bounds while a block runs: there is no time to lose."""
        return self._with_bounds(cpu=False, of_bytes=False)

    @contextlib.contextmanager
    def _with_bounds(self, *, cpu: bool, of_bytes: bool) -> Iterator[None]:
        self._bounds_cpu, self._bounds_bytes = cpu, of_bytes
        try:
            yield
        finally:
            self._bounds_cpu = self._bounds_bytes = True

    def owed_s(self) -> float:
        """Return how long nothing more may be copied, for the bytes that have been."""
        return max(0.0, self._paid_s - self._clock())

    def pause_s(self, copied_bytes: int) -> float:
        """Return for how long to wait.

        Args:
            copied_bytes: What has been copied since the last call.
        """
        now_s = self._clock()
        due_s = 0.0
        if self._cpu_share is not None and self._bounds_cpu:
            cpu_s = (self._cpu_clock() - self._cpu_began_s) / self._cpu_share
            due_s = min(_LONGEST_S, max(0.0, self._began_s + cpu_s - now_s))
        if self._bytes_per_s is not None and self._bounds_bytes:
            self._paid_s = max(now_s, self._paid_s) + copied_bytes / self._bytes_per_s
            due_s = max(due_s, self.owed_s())
        return due_s
