"""What the rules look at: the members of a task and what is around them, at one instant.

Records only. `snaplib.checkpoint.preflight.collect` fills them; the rules read nothing else.
"""

from __future__ import annotations

import functools
import re
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs

from snaplib.checkpoint.preflight.obstacle import Obstacle
from snaplib.kernel.sockets import SocketTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from snaplib.checkpoint.preflight.obstacle import Severity
    from snaplib.kernel.descriptors import Descriptor
    from snaplib.kernel.maps import Mapping as MemoryMapping
    from snaplib.kernel.mounts import Mount
    from snaplib.kernel.process import ProcessStat, ProcessStatus
    from snaplib.kernel.sockets import Socket

__all__ = ["FileFacts", "Holder", "Member", "Scene", "Stranger", "inode_in", "plain_address"]

_MAPPED = re.compile(r"^\[::ffff:(\d+\.\d+\.\d+\.\d+)\]")
_BRACKETED = re.compile(r"^[a-z]+:\[(\d+)\]$")


@attrs.frozen
class FileFacts:
    """What stat(2) says of an open or mapped file.

    Attributes:
        mode: Type and permissions.
        dev: Device it is on.
        inode: Inode number.
        links: Number of names it has.
        rdev: Device number of a device node.
        allocated_bytes: What it occupies on disk, holes left out.
        file_system: Magic number of its file system, where it was asked for.
        path_leads_to: Device and inode of what its path leads to now; None when that was not
            looked at or leads nowhere.
    """

    mode: int
    dev: int
    inode: int
    links: int
    rdev: int
    allocated_bytes: int
    file_system: int | None = None
    path_leads_to: tuple[int, int] | None = None


@attrs.frozen
class Member:
    """One process of a task.

    Attributes:
        stat: What its `stat` says.
        status: What its `status` says.
        threads: Ids of its threads.
        tracers: Pid of the tracer of each of its threads that has one, by the thread's id.
        namespaces: Inode of each of its namespaces by kind.
        descriptors: Its open descriptors.
        files: What stat says of them, by descriptor, where it was asked for.
        sockets: The kernel's name of the protocol of its sockets, by descriptor.
        escaped: By epoll, the descriptors it watches that this process has open no more.
        corked: Descriptors of UDP sockets that gather a datagram.
        kernel_tls: Descriptors of TCP sockets that the kernel encrypts.
        mappings: Its memory mappings.
        mapped_files: What stat says of mapped files without a name, by start address.
        stuck_in: What it waits for without being interruptible: the number of a system call, or
            -1 if that is not known; None when it is not stuck.
    """

    stat: ProcessStat
    status: ProcessStatus
    threads: tuple[int, ...] = ()
    tracers: Mapping[int, int] = MappingProxyType({})
    namespaces: Mapping[str, int] = MappingProxyType({})
    descriptors: tuple[Descriptor, ...] = ()
    files: Mapping[int, FileFacts] = MappingProxyType({})
    sockets: Mapping[int, str] = MappingProxyType({})
    escaped: Mapping[int, tuple[int, ...]] = MappingProxyType({})
    corked: frozenset[int] = frozenset()
    kernel_tls: frozenset[int] = frozenset()
    mappings: tuple[MemoryMapping, ...] = ()
    mapped_files: Mapping[int, FileFacts] = MappingProxyType({})
    stuck_in: int | None = None

    @property
    def pid(self) -> int:
        """Its pid on this host."""
        return self.stat.pid

    @functools.cached_property
    def socket_inodes(self) -> Mapping[int, int]:
        """Inode of each of its sockets by descriptor."""
        found = {one.fd: inode_in(one.target, "socket") for one in self.descriptors}
        return {fd: inode for fd, inode in found.items() if inode is not None}

    @property
    def ns_pid(self) -> int:
        """Its pid in its own PID namespace."""
        return self.status.ns_pids[-1]

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"pid {self.pid} ({self.stat.comm})"

    def obstacle(
        self, severity: Severity, code: str, subject: str, message: str, remedy: str
    ) -> Obstacle:
        """Make an obstacle that this process has."""
        return Obstacle(
            code=code,
            severity=severity,
            pid=self.pid,
            ns_pid=self.ns_pid,
            comm=self.stat.comm,
            subject=subject,
            message=message,
            remedy=remedy,
        )


@attrs.frozen
class Holder:
    """A process outside the task that has one of the task's objects open."""

    pid: int
    comm: str
    readable: bool = True
    writable: bool = True

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"pid {self.pid} ({self.comm})"


@attrs.frozen
class Stranger:
    """A process that belongs to the task but is not a descendant of its root.

    Attributes:
        pid: Its pid on this host.
        comm: Its name.
        in_namespace: Whether it is in the task's own PID namespace; if not, it only shares a
            session with a member.
    """

    pid: int
    comm: str
    in_namespace: bool


@attrs.frozen
class Scene:
    """A task and what is around it.

    Attributes:
        members: Its processes by pid, parents before children.
        root: Pid of its first process.
        launched: Whether snaplib launched or restored it: CRIU then runs in its PID and mount
            namespaces.
        dumper_namespaces: The namespaces in which CRIU runs, by kind.
        dumper_status: Our own ids and capabilities, which CRIU has too; None where they do not matter.
        own_proc: Whether the pids in /proc that members see are those of their own namespace.
        mounts: What is mounted in the task's mount namespace, by number.
        sockets: Sockets of the task's network namespace: its own, their peers, those that listen.
        interfaces: Network interfaces of that namespace when it is not CRIU's; without the
            loopback and others that every namespace has.
        holders: Processes outside that have a pipe or socket of the task open, by its target.
        names: Name of other processes of which messages speak, by pid.
        strangers: Processes that belong to the task but would not be dumped.
        message_queues: System V message queues that members have used: id and pid of the member.
        streams: What is known to lead to the task's owner, such as ``pipe:[7]`` and
            ``tty[8800:1a]``.
        tcp: What becomes of connections: ``auto``, ``established`` or ``close``.
        ghost_limit_bytes: How large a deleted file may be.
        internal_dev: Device of the kernel's own tmpfs, on which memfds are.
    """

    members: Mapping[int, Member]
    root: int
    launched: bool = False
    dumper_namespaces: Mapping[str, int] = MappingProxyType({})
    dumper_status: ProcessStatus | None = None
    own_proc: bool = False
    mounts: Mapping[int, Mount] = MappingProxyType({})
    sockets: SocketTable = attrs.field(factory=SocketTable)
    interfaces: tuple[str, ...] = ()
    holders: Mapping[str, Sequence[Holder]] = MappingProxyType({})
    names: Mapping[int, str] = MappingProxyType({})
    strangers: tuple[Stranger, ...] = ()
    message_queues: tuple[tuple[int, int], ...] = ()
    streams: frozenset[str] = frozenset()
    tcp: str = "auto"
    ghost_limit_bytes: int = 1 << 30
    internal_dev: int = -1

    @property
    def root_member(self) -> Member:
        """Its first process."""
        return self.members[self.root]

    @functools.cached_property
    def socket_inodes(self) -> frozenset[int]:
        """Inodes of all sockets that members have open."""
        return frozenset().union(*(one.socket_inodes.values() for one in self.members.values()))

    @functools.cached_property
    def half_held_pipes(self) -> Mapping[str, bool]:
        """Pipes of which the task holds one end only, and whether that is the writing one.

        Those of the task's own streams are left out.
        """
        readable: set[str] = set()
        writable: set[str] = set()
        for member in self.members.values():
            for descriptor in member.descriptors:
                if descriptor.target.startswith("pipe:["):
                    if descriptor.readable:
                        readable.add(descriptor.target)
                    if descriptor.writable:
                        writable.add(descriptor.target)
        return {one: one in writable for one in (readable ^ writable) - self.streams}

    @functools.cached_property
    def connections(self) -> frozenset[tuple[str, str]]:
        """Own and remote address of each connection that members have, of IPv4 where they are so in disguise."""
        return frozenset(
            (plain_address(one.local), plain_address(one.remote))
            for member in self.members.values()
            for _, one in self.sockets_of(member)
            if one.remote
        )

    def sockets_of(self, member: Member) -> Iterator[tuple[int, Socket]]:
        """Yield descriptor and socket of those of a member that the kernel lists."""
        for fd, inode in member.socket_inodes.items():
            if inode in self.sockets.by_inode:
                yield fd, self.sockets.by_inode[inode]

    def name_of(self, pid: int) -> str:
        """Return how messages call a process, whether a member or not."""
        if pid in self.members:
            return self.members[pid].name
        return f"pid {pid} ({self.names[pid]})" if pid in self.names else f"pid {pid}"


def plain_address(text: str) -> str:
    """Return an address and port, of IPv4 where it is so in the guise of IPv6 (``[::ffff:10.0.0.1]:80``)."""
    return _MAPPED.sub(r"\1", text)


def inode_in(target: str, kind: str) -> int | None:
    """Return the inode in a target such as ``socket:[7]`` if it is of this kind."""
    if not target.startswith(f"{kind}:["):
        return None
    found = _BRACKETED.match(target)
    return int(found[1]) if found else None
