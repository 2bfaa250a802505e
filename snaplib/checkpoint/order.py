"""What is wanted of a dump, said once and the same for each attempt at it."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from snaplib.checkpoint.deadline import Deadline
from snaplib.checkpoint.noting import Stopwatch
from snaplib.criu import Criu
from snaplib.errors import DeadlineExceeded
from snaplib.forecasting import Promise
from snaplib.store import Store
from snaplib.task import Task

__all__ = ["DumpOrder", "Progress"]

Progress = Callable[[str, float], None]


@attrs.frozen
class DumpOrder:
    """What is wanted of a dump.

    Attributes:
        task: What to save.
        store: Where to.
        criu: The CRIU that does it.
        leave_running: Whether the task runs on afterwards.
        deadline: When it is given up.
        tcp: What becomes of connected TCP sockets.
        stand_in: Whether the snapshot is to take the place of a task that runs on should that be lost.
        files: Whether the contents of files go with the snapshot, one of `FILE_MODES`.
        capture: Absolute patterns of files whose contents go with it in any case.
        progress: Called with a stage and the bytes of pages so far.
        promise: What was forecast of it.
        stopwatch: When its phases began.
    """

    task: Task
    store: Store
    criu: Criu
    leave_running: bool
    deadline: Deadline
    tcp: str
    stand_in: bool
    files: str
    capture: tuple[str, ...]
    progress: Progress
    promise: Promise | None
    stopwatch: Stopwatch

    def too_late(self) -> DeadlineExceeded:
        """Return the error that the deadline has passed."""
        if self.deadline.called_off:
            return DeadlineExceeded(
                f"the dump of pid {self.task.pid} was called off; the task runs on"
            )
        return DeadlineExceeded(
            f"the dump of pid {self.task.pid} was not done after {self.deadline.seconds:g} s; the task runs on",
            hint="give it a longer window, or a faster store",
        )
