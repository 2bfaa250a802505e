"""The running task: a process tree, known by its root.

A `Task` is a live object. Its root is held by a pidfd and its start time, so that a pid that is
used again for something else is never taken for it. What it says of the task's processes are
records that cannot change.
"""

from __future__ import annotations

from snaplib.task.freezing import Frozen
from snaplib.task.key import default_key
from snaplib.task.task import Task
from snaplib.task.tree import Member

__all__ = ["Frozen", "Member", "Task", "default_key"]
