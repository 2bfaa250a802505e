"""Gathers what the rules look at. Nothing is stopped, and nothing of the task is opened.

What ends or is closed while it is read is left out.
"""

from __future__ import annotations

import contextlib
import os
from socket import AF_INET, AF_INET6, AF_NETLINK, AF_UNIX
from typing import TYPE_CHECKING

import attrs

from snaplib.checkpoint.preflight.outside import find_holders, find_names, find_strangers
from snaplib.checkpoint.preflight.reader import MemberReader, internal_dev, link_target
from snaplib.checkpoint.preflight.scene import Scene
from snaplib.checkpoint.preflight.sockets import outside_inodes
from snaplib.errors import RootRequired, TaskEnded
from snaplib.kernel.sockets import Socket, SocketTable, list_sockets

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from snaplib.checkpoint.preflight.scene import Member
    from snaplib.kernel.process import ProcessStatus
    from snaplib.kernel.procfs import ProcFs

__all__ = ["collect"]

#: The loopback, and what tunnel modules put into every network namespace (fb_tunnels_only_for_init_net
#: in the kernel's Documentation/admin-guide/sysctl/net.rst).
_EVERYWHERE = frozenset(
    [
        "lo",
        "tunl0",
        "gre0",
        "gretap0",
        "erspan0",
        "ip_vti0",
        "sit0",
        "ip6tnl0",
        "ip6_vti0",
        "ip6gre0",
    ]
)

#: Protocols of which the kernel's lists are needed.
_FAMILIES = {
    "UNIX": AF_UNIX,
    "UNIX-STREAM": AF_UNIX,
    "TCP": AF_INET,
    "UDP": AF_INET,
    "TCPv6": AF_INET6,
    "UDPv6": AF_INET6,
    "NETLINK": AF_NETLINK,
}


def collect(
    root: int,
    *,
    procfs: ProcFs,
    launched: bool,
    streams: Collection[str],
    tcp: str,
    ghost_limit_bytes: int,
) -> Scene:
    """Look at a task.

    Args:
        root: Pid of its first process.
        procfs: Where processes are seen.
        launched: Whether CRIU will run in the task's own PID and mount namespaces.
        streams: What is known to lead to the task's owner.
        tcp: What is to become of connections.
        ghost_limit_bytes: How large a deleted file may be.

    Raises:
        TaskEnded: The root has ended.
        RootRequired: It is not ours to look at.
    """
    try:
        ours = _namespaces(procfs, os.getpid())
        root_namespaces = procfs.namespaces(root)
        mounts = {one.mount_id: one for one in procfs.mounts(root)}
        shared_memory_dev = internal_dev()
        same_mounts = root_namespaces.get("mnt") == ours.get("mnt")
        reader = MemberReader(procfs, mounts, shared_memory_dev, same_mounts)
        members = reader.members(procfs.tree(root))
    except ProcessLookupError:
        raise TaskEnded(f"the task {root} has ended") from None
    except PermissionError as error:
        raise RootRequired(f"pid {root} may not be looked into: {error.strerror}") from None
    if root not in members:
        raise TaskEnded(f"the task {root} has ended")
    dumper = dict(ours)
    if launched:
        dumper |= {kind: root_namespaces[kind] for kind in ("pid", "mnt") if kind in ours}
    members, sockets = _sockets(procfs, members, ours)
    own_proc = root_namespaces.get("pid") != ours.get("pid")
    scene = Scene(
        members=members,
        root=root,
        launched=launched,
        dumper_namespaces=dumper,
        dumper_status=_own_status(procfs),
        own_proc=own_proc,
        mounts=mounts,
        sockets=sockets,
        streams=frozenset(streams),
        tcp=tcp,
        ghost_limit_bytes=ghost_limit_bytes,
        internal_dev=shared_memory_dev,
    )
    targets = {*scene.half_held_pipes, *(f"socket:[{one}]" for one in outside_inodes(scene))}
    own_network = root_namespaces.get("net") != ours.get("net")
    own_ipc = root_namespaces.get("ipc") != ours.get("ipc")
    return attrs.evolve(
        scene,
        members=reader.still_stuck(members),
        holders=find_holders(procfs, targets, members),
        strangers=find_strangers(procfs, members, root, in_namespace=own_proc),
        names=find_names(procfs, scene),
        interfaces=_interfaces(procfs, root) if own_network else (),
        message_queues=() if own_ipc else _message_queues(procfs, members),
    )


def _namespaces(procfs: ProcFs, pid: int) -> dict[str, int]:
    # This process is not in a made-up /proc.
    with contextlib.suppress(ProcessLookupError):
        return procfs.namespaces(pid)
    return {}


def _own_status(procfs: ProcFs) -> ProcessStatus | None:
    with contextlib.suppress(ProcessLookupError):
        return procfs.status(os.getpid())
    return None


def _sockets(
    procfs: ProcFs, members: Mapping[int, Member], ours: Mapping[str, int]
) -> tuple[dict[int, Member], SocketTable]:
    """List the members' sockets, and leave out those that were closed meanwhile."""
    wanted: dict[int, tuple[int, set[int], set[int]]] = {}
    for member in members.values():
        namespace = member.namespaces.get("net", -1)
        _, families, inodes = wanted.setdefault(namespace, (member.pid, set(), set()))
        for fd, inode in member.socket_inodes.items():
            name = member.sockets.get(fd)
            if name in _FAMILIES:
                families.add(_FAMILIES[name])
                inodes.add(inode)
    table: dict[int, Socket] = {}
    complete: set[int] = set()
    for namespace, (pid, families, inodes) in wanted.items():
        if not families:
            continue
        path = None if namespace == ours.get("net") else f"{procfs.root}/{pid}/ns/net"
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found = list_sockets(families, inodes, path)
            table |= found.by_inode
            complete |= found.families
    kept = {}
    for pid, member in members.items():
        gone = {
            fd
            for fd, inode in member.socket_inodes.items()
            if inode not in table and link_target(procfs, pid, fd) != f"socket:[{inode}]"
        }
        left = {fd: name for fd, name in member.sockets.items() if fd not in gone}
        kept[pid] = attrs.evolve(member, sockets=left) if gone else member
    return kept, SocketTable(table, frozenset(complete))


def _interfaces(procfs: ProcFs, pid: int) -> tuple[str, ...]:
    """Return the network interfaces of a process's namespace but for those that all have."""
    try:
        lines = (procfs.root / str(pid) / "net/dev").read_text().splitlines()[2:]
    except OSError:
        return ()
    names = [line.partition(":")[0].strip() for line in lines]
    return tuple(name for name in names if name not in _EVERYWHERE)


def _message_queues(procfs: ProcFs, members: Collection[int]) -> tuple[tuple[int, int], ...]:
    """Return id and user of the System V message queues that members used last (msgctl(2))."""
    try:
        lines = (procfs.root / "sysvipc/msg").read_text().splitlines()[1:]
    except OSError:
        return ()
    found: list[tuple[int, int]] = []
    for line in lines:
        words = line.split()
        number = int(words[1])
        users = {int(words[5]), int(words[6])}
        found.extend((number, pid) for pid in users.intersection(members))
    return tuple(found)
