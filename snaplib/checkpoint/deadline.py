"""A moment by which something must be done, which may move while it is being done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from snaplib.arguments import number

__all__ = ["Deadline"]


class Deadline:
    """Seconds left, for several threads.

    Args:
        seconds: How many from now.
        clock: Tells the time in seconds, never backwards.

    Raises:
        UsageError: It is no number of seconds, or infinite.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        seconds = number("the deadline", seconds, finite=True)
        self._clock = clock
        self._end_s = clock() + seconds
        self._changed = threading.Condition()
        self._called_off = False
        #: What it was when it was set.
        self.seconds = seconds

    @property
    def left_s(self) -> float:
        """Seconds left, 0 afterwards."""
        with self._changed:
            return self._left_s()

    def _left_s(self) -> float:
        return 0.0 if self._called_off else max(0.0, self._end_s - self._clock())

    @property
    def called_off(self) -> bool:
        """Whether what it is for is not wanted any more."""
        return self._called_off

    def move(self, seconds: float) -> None:
        """Set it anew.

        Args:
            seconds: How many from now.

        Raises:
            UsageError: It is no number of seconds, or infinite.
        """
        seconds = number("the deadline", seconds, finite=True)
        with self._changed:
            self._end_s = self._clock() + seconds
            self._changed.notify_all()

    def call_off(self) -> None:
        """Say that what it is for is not wanted any more: it passes at once."""
        with self._changed:
            self._called_off = True
            self._changed.notify_all()

    def wake(self) -> None:
        """Let those that `wait` look again at what else they wait for."""
        with self._changed:
            self._changed.notify_all()

    def wait(self, otherwise: Callable[[], bool]) -> bool:
        """Wait until it has passed, or something else has happened.

        Args:
            otherwise: Tells whether that has happened; `wake` makes it be asked.

        Returns:
            Whether the deadline has passed.
        """
        with self._changed:
            while not otherwise():
                left_s = self._left_s()
                if left_s <= 0:
                    return True
                self._changed.wait(min(left_s, threading.TIMEOUT_MAX))
            return False
