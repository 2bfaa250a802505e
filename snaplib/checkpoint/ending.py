"""The end of a task that CRIU has begun, when something goes wrong in the midst of it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence

from snaplib.task import Member, Task

__all__ = ["finish_end"]


def finish_end(task: Task, members: Sequence[Member]) -> bool:
    """Find out whether CRIU had begun to end a task, and end what is left of it then.

    Every member still there means that CRIU has let them run on.  If one is gone, so must be the others: a snapshot
    is what is left of the task.

    Args:
        task: The task; CRIU is done with it.
        members: Those of it that were dumped.

    Returns:
        Whether the task has ended.
    """
    survivors = [member.pid for member in members if task.is_member(member)]
    if len(survivors) == len(members):
        return False
    for pid in survivors:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return True
