"""What a watch knows of a task at one instant."""

from __future__ import annotations

from typing import Literal

import attrs

from snaplib.observe.ages import DirtyBasis, PageAges
from snaplib.observe.descriptors import DescriptorTable
from snaplib.observe.memory import Memory
from snaplib.observe.sockets import SocketTable

__all__ = ["FaultCounts", "Losses", "Member", "Profile", "TreeCounts", "TreeEvent"]


@attrs.frozen
class FaultCounts:
    """Page faults since the watch began, by what they were about.

    ``user`` ones come from the program's own instructions, ``kernel`` ones from system calls that read
    or fill its memory. Writes through get_user_pages (O_DIRECT, process_vm_writev) make none.

    Attributes:
        user_reads: First read of a page.
        user_writes: First write to a page.
        user_protected: Writes to a page that was write-protected: armed, or shared since fork.
        kernel_reads: The same three in the kernel.
        kernel_writes: See above.
        kernel_protected: See above.
        other: All others; without eBPF, all there were, for /proc does not tell them apart.
    """

    user_reads: int = 0
    user_writes: int = 0
    user_protected: int = 0
    kernel_reads: int = 0
    kernel_writes: int = 0
    kernel_protected: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(attrs.astuple(self))

    @property
    def writes(self) -> int:
        """First writes to pages, and writes to write-protected ones."""
        return self.user_writes + self.user_protected + self.kernel_writes + self.kernel_protected


@attrs.frozen
class Member:
    """One process of the task.

    Attributes:
        pid: As the watching process sees it.
        ppid: Its parent; 0 if that is outside of what can be seen.
        comm: Name of its main thread.
        threads: How many it has.
        start_ticks: When it started, in clock ticks since boot; with the pid the name of one process.
        resident_bytes: Resident memory.
        anon_bytes: Of that, private and anonymous.
        user_s: CPU time in user mode, in seconds.
        system_s: CPU time in the kernel, in seconds.
        faults: Its page faults.
    """

    pid: int
    ppid: int
    comm: str
    threads: int
    start_ticks: int
    resident_bytes: int
    anon_bytes: int
    user_s: float
    system_s: float
    faults: FaultCounts = attrs.field(factory=FaultCounts)


@attrs.frozen
class TreeCounts:
    """What happened in the task since the watch began. Without eBPF all but nothing: zeros.

    Attributes:
        forks: Processes born.
        execs: Programs executed.
        exits: Processes ended.
        adopted: Processes that became members although nobody saw them being born: orphans that a member
            took in, and births that were missed, which `Losses` tells.
        threads_started: Threads born, main threads not counted.
        threads_ended: Threads ended, main threads not counted.
        anon_changes: Changes of the number of anonymous pages that members made to themselves; one
            change may be of many pages.
        file_changes: The same of pages of mapped files.
        shmem_changes: The same of pages of shared memory.
        tcp_changes: How often a TCP socket went into each state; (state, count), by name.
    """

    forks: int = 0
    execs: int = 0
    exits: int = 0
    adopted: int = 0
    threads_started: int = 0
    threads_ended: int = 0
    anon_changes: int = 0
    file_changes: int = 0
    shmem_changes: int = 0
    tcp_changes: tuple[tuple[str, int], ...] = ()


@attrs.frozen
class TreeEvent:
    """Something that happened to a process of the task.

    Attributes:
        time_s: When (CLOCK_MONOTONIC).
        kind: ``fork``, ``exec`` or ``exit``.
        pid: To whom; 0 if it is not known by a pid of our PID namespace.
        child_pid: Of a fork, the new process; else 0.
    """

    time_s: float
    kind: Literal["fork", "exec", "exit"]
    pid: int
    child_pid: int = 0


@attrs.frozen
class Losses:
    """What the watch could not see since it began; all zero means that every count is exact.

    Attributes:
        events: Events left out of the lists because there was no room; the counts have them.
        members: Processes that did not fit into the kernel's maps; nothing of them is counted.
        sockets: TCP sockets that did not fit; their state changes are not counted.
        runs: Faults or events not counted because their CPU was counting another one.
        scans: Looks at changed pages that failed or came too late; the next one makes up for them.
    """

    events: int = 0
    members: int = 0
    sockets: int = 0
    runs: int = 0
    scans: int = 0

    @property
    def total(self) -> int:
        """All of them; 0 is what one wants to see."""
        return sum(attrs.astuple(self))


@attrs.frozen
class Profile:
    """What a watch knows of a task at one instant; it never changes.

    Attributes:
        monotonic_s: When it was taken (CLOCK_MONOTONIC).
        wall_s: The same in seconds since 1970.
        interval_s: Time since the profile before; 0 for the first.
        duration_s: What taking it cost.
        pid: The task's root.
        source: ``ebpf``, or ``proc`` where eBPF cannot be used.
        notes: What is missing here and why, a sentence each.
        members: The processes, the oldest first.
        cgroup: Its version 2 cgroup, empty without one.
        memory: Memory by kind.
        growth_bytes_s: By how much `dumpable_bytes` grew a second at last; negative where it shrinks, None
            where only one look was taken.
        dirty_basis: What the dirty figures rest on: see `DirtyBasis`.
        dirty_rate_bytes_s: Bytes in distinct pages written in the last interval, per second of it.
        dirty_runs: In how many places those pages are, neighbours being one; each costs a copy time. Of a
            sample it is scaled up as the pages are; 0 where only faults are seen.
        page_ages: Distinct memory written in the last t seconds, for every t.
        untracked_bytes: Memory that cannot be tracked; it counts as written all the time.
        frozen_s: For how long the task stood still for this profile, new mappings being armed.
        faults: Page faults of the whole task, those of ended members included.
        counts: What happened in the tree.
        events: What happened in the last interval, at most some hundreds.
        descriptors: All open descriptors.
        sockets: Those of them that are sockets.
        losses: What could not be seen.
    """

    monotonic_s: float
    wall_s: float
    interval_s: float
    duration_s: float
    pid: int
    source: Literal["ebpf", "proc"]
    dirty_basis: DirtyBasis
    notes: tuple[str, ...] = ()
    members: tuple[Member, ...] = ()
    cgroup: str = ""
    memory: Memory = attrs.field(factory=Memory)
    growth_bytes_s: float | None = None
    dirty_rate_bytes_s: float = 0.0
    dirty_runs: float = 0.0
    page_ages: PageAges = attrs.field(factory=PageAges)
    untracked_bytes: int = 0
    frozen_s: float = 0.0
    faults: FaultCounts = attrs.field(factory=FaultCounts)
    counts: TreeCounts = attrs.field(factory=TreeCounts)
    events: tuple[TreeEvent, ...] = ()
    descriptors: DescriptorTable = attrs.field(factory=DescriptorTable)
    sockets: SocketTable = attrs.field(factory=SocketTable)
    losses: Losses = attrs.field(factory=Losses)

    @property
    def resident_bytes(self) -> int:
        """Resident memory of all members."""
        return self.memory.resident_bytes

    @property
    def dumpable_bytes(self) -> int:
        """What a full dump would hold of memory."""
        return self.memory.dumpable_bytes

    @property
    def threads(self) -> int:
        """Threads of all members."""
        return sum(member.threads for member in self.members)

    def distinct_dirty_bytes(self, t_s: float) -> float:
        """Return the bytes in distinct pages written in the last ``t_s`` seconds.

        It is what a copy made so long ago would miss. See `PageAges.distinct_dirty_bytes`, and
        ``dirty_basis`` for what it is worth.
        """
        return self.page_ages.distinct_dirty_bytes(t_s)
