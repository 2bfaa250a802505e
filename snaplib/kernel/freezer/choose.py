"""Which freezer a task is frozen with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snaplib.kernel.cgroup import find_cgroup
from snaplib.kernel.freezer.cgroupfreezer import CgroupFreezer
from snaplib.kernel.freezer.stopfreezer import StopFreezer

if TYPE_CHECKING:
    from snaplib.kernel.cgroup import TaskCgroup
    from snaplib.kernel.freezer.base import Freezer
    from snaplib.kernel.procfs import ProcFs

__all__ = ["choose_freezer"]


def choose_freezer(procfs: ProcFs, pid: int, cgroup: TaskCgroup | None = None) -> Freezer:
    """Return the best freezer for a task: of its own cgroup, else by signals.

    Args:
        procfs: Where the processes are seen.
        pid: The task's root.
        cgroup: The one that was made for the task, if any.

    Raises:
        ProcessLookupError: The task has ended.
    """
    if cgroup is not None and cgroup.holds(procfs, pid):
        return CgroupFreezer(cgroup)
    found = find_cgroup(procfs, pid)
    return StopFreezer(procfs, pid) if found is None else CgroupFreezer(found)
