"""Whether a task has been writing to its memory, told by its page faults: cheap enough to ask all the time.

Once a task's pages are write-protected its first write to each costs it a page fault, which the kernel counts
(proc_pid_stat(5): ``minflt``).  So a task whose count hardly moves has hardly changed anything that a copy should know.
Nothing rests on it but when to look properly: what changed is told by the tracker.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snaplib.task import Task

__all__ = ["Activity"]


class Activity:
    """Counts the page faults of a task since a moment.

    Args:
        task: The task.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._before: dict[tuple[int, int], int] = {}

    def mark(self) -> None:
        """Count from now on."""
        self._before = self._counts()

    def faults(self) -> int:
        """Return how many faults those processes had since `mark` that are there now."""
        return sum(
            max(0, count - self._before.get(process, 0))
            for process, count in self._counts().items()
        )

    def _counts(self) -> dict[tuple[int, int], int]:
        counts = {}
        procfs = self._task.procfs
        with contextlib.suppress(ProcessLookupError):
            for pid in procfs.tree(self._task.pid):
                with contextlib.suppress(ProcessLookupError):
                    stat = procfs.stat(pid)
                    counts[pid, stat.start_ticks] = stat.minor_faults + stat.major_faults
        return counts
