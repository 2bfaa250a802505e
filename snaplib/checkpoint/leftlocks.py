"""What a CRIU that was killed leaves of a task's connections: locked, in repair mode, and so standing still for ever.

Whose lock it is nobody has written down.  But nobody dumps the task, so whatever locks connections that it has is left
over.  A lock on connections of nobody here may be of a task that is to be restored, and stays.
"""

from __future__ import annotations

import contextlib
import socket

from snaplib.checkpoint.netlock import standing_locks, unlock
from snaplib.checkpoint.preflight.scene import inode_in, plain_address
from snaplib.kernel.descriptors import read_descriptors
from snaplib.kernel.repair import end_repair
from snaplib.kernel.sockets import list_sockets
from snaplib.task import Task

__all__ = ["free_connections"]


def free_connections(task: Task) -> None:
    """Let a task's connections go on that were left locked.

    Args:
        task: A task that nobody dumps at the moment.

    Raises:
        TaskEnded: It has ended.
    """
    locks = standing_locks()
    if not locks:
        return
    connections = _connections(task)
    ours = [name for name, locked in locks.items() if not locked.isdisjoint(connections)]
    for name in ours:
        unlock(name)
    if ours:
        for pid, descriptor in connections.values():
            with contextlib.suppress(OSError):
                end_repair(pid, descriptor)


def _connections(task: Task) -> dict[tuple[str, str], tuple[int, int]]:
    """Return who has each TCP connection of a task, pid and descriptor, by both its sides, its own first."""
    held = {}
    for member in task.members():
        with contextlib.suppress(OSError):
            for one in read_descriptors(f"{task.procfs.root}/{member.pid}"):
                inode = inode_in(one.target, "socket")
                if inode is not None:
                    held[inode] = (member.pid, one.fd)
    found = list_sockets((socket.AF_INET, socket.AF_INET6), held)
    return {
        (plain_address(one.local), plain_address(one.remote)): held[inode]
        for inode, one in found.by_inode.items()
        if inode in held and one.remote and one.protocol == socket.IPPROTO_TCP
    }
