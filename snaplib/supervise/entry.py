"""What the other runs of this machine are told of one of them."""

from __future__ import annotations

import os
import time

from snaplib.node import Entry
from snaplib.supervise.settings import Settings
from snaplib.task import Task

__all__ = ["age_s", "entry_of"]


def entry_of(settings: Settings, task: Task) -> Entry:
    """Return the entry of a run whose task runs.

    Args:
        settings: The run.
        task: Its task.
    """
    return Entry(
        name=settings.session_name,
        key=settings.key,
        state="running",
        pid=task.pid,
        began_s=time.monotonic() - age_s(task),
        priority=settings.priority,
    )


def age_s(task: Task) -> float:
    """Return how long a task has run on this machine, also under supervisors before this one.

    Args:
        task: The task.
    """
    started_s = task.start_time / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started_s)
