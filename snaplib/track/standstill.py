"""Stopping the task for a moment, and adding up for how long."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snaplib.track.tracker import TrackableTask

__all__ = ["Standstill"]


class Standstill:
    """Stops a task, again and again.

    Args:
        task: What to stop.
        deadline_s: For how long at most, each time.

    Attributes:
        stood_s: For how long it stood still since `reset`: from the first thread that was told to
            stop to the last that was told to go on.
    """

    def __init__(self, task: TrackableTask, deadline_s: float) -> None:
        self._task = task
        self._deadline_s = deadline_s
        self.stood_s = 0.0

    def reset(self) -> None:
        """Begin to add up anew."""
        self.stood_s = 0.0

    @contextlib.contextmanager
    def stop(self) -> Iterator[float]:
        """Stop it while the block runs; give the time at which it runs again at the latest.

        Raises:
            TimeoutError: It could not be stopped in time, or the block took too long; it runs.
        """
        began_s = time.monotonic()
        try:
            with self._task.frozen(self._deadline_s) as frozen:
                # The time that it takes to start the guardian does not count: nothing is stopped by then.
                began_s = frozen.deadline - self._deadline_s
                yield frozen.deadline
        finally:
            self.stood_s += time.monotonic() - began_s

    def pause(self) -> bool:
        """Stop it for a moment; return whether that worked.

        A thread that reads from a disk straight into memory cannot be stopped before the disk is
        done with it. Such a read may fill pages that were armed after it began, unseen; when all
        threads have stood still, no such read is under way any more.
        """
        try:
            with self.stop():
                return True
        except TimeoutError:
            return False
