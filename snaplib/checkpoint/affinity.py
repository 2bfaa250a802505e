"""The CPUs that threads are confined to, which CRIU does not restore."""

from __future__ import annotations

import contextlib
import os

from snaplib.store import Snapshot
from snaplib.task import Task

__all__ = ["restore_affinity"]


def restore_affinity(task: Task, snapshot: Snapshot) -> None:
    """Confine each thread to the CPUs that it was confined to, as far as they exist here.

    Args:
        task: The restored task.
        snapshot: What it was restored from.
    """
    wanted = snapshot.task.get("affinity", {})
    if not wanted:
        return
    here = os.sched_getaffinity(0)
    for host_tid, ns_tid in task.thread_ids().items():
        cpus = set(wanted.get(str(ns_tid), ())) & here
        if cpus:
            with contextlib.suppress(ProcessLookupError):  # it has ended since
                os.sched_setaffinity(host_tid, cpus)
