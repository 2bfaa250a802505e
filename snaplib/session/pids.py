"""Which pids CRIU itself may have in a namespace where it is to restore a task with the pids it had."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from snaplib.errors import SnaplibError

__all__ = ["free_pids"]

#: CRIU and what it starts need pids of their own in the namespace they restore in.
_HELPER_PIDS = 64
_FIRST_FREE_PID = 2


def free_pids(reserve: Collection[int]) -> int:
    """Return the first of enough pids in a row that are not reserved.

    Raises:
        SnaplibError: There are none.
    """
    limit = int(Path("/proc/sys/kernel/pid_max").read_text())
    first = _FIRST_FREE_PID
    for pid in [*sorted(reserve), limit]:
        if pid - first >= _HELPER_PIDS:
            return first
        first = max(first, pid + 1)
    raise SnaplibError("the task leaves no pids free for CRIU to work with")
