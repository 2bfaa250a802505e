"""What a manifest says of the task and the host it was dumped on."""

from __future__ import annotations

import os
import platform
from typing import Any

from snaplib.criu import Criu
from snaplib.task import Task

__all__ = ["describe_host", "describe_task"]


def describe_host(criu: Criu) -> dict[str, Any]:
    """Return the host's part of a manifest: what a restore elsewhere has to fit.

    Args:
        criu: The CRIU that takes the dump.
    """
    system = platform.uname()
    return {"kernel": system.release, "arch": system.machine, "criu_version": criu.version_text}


def describe_task(task: Task) -> dict[str, Any]:
    """Return the task's part of a manifest: its members, and what CRIU does not restore by itself.

    Args:
        task: The task, best frozen.

    Returns:
        ``members`` with pids as the task itself sees them, and ``affinity``: the CPUs of each thread that is not
        free to run on all of them.
    """
    members = task.members()
    inside = task.thread_ids()
    everywhere = set(range(os.cpu_count() or 1))
    narrowed = {
        tid: sorted(cpus) for tid, cpus in task.affinity().items() if not everywhere <= cpus
    }
    root = next((member for member in members if member.pid == task.pid), None)
    return {
        "command": list(task.command),
        "cwd": task.cwd,
        "root_ns_pid": root.ns_pid if root else task.ns_pid,
        "members": [
            {
                "pid": member.ns_pid,
                **task.group_and_session(member),
                "comm": member.comm,
                "state": member.state,
                "threads": [inside[tid] for tid in member.threads if tid in inside],
            }
            for member in members
        ],
        "affinity": {str(tid): cpus for tid, cpus in narrowed.items()},
    }
