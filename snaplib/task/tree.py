"""The processes of a task, as /proc shows them."""

from __future__ import annotations

import contextlib
import os
import select
import weakref

import attrs

from snaplib.arguments import milliseconds
from snaplib.errors import NoSuchTask, TaskEnded, UsageError
from snaplib.kernel.procfs import ProcFs

__all__ = ["NOBODY", "Member", "ProcessTree"]

#: The pid of a task that ended before anybody could look at it.
NOBODY = 0


@attrs.frozen
class Member:
    """One process of a task.

    Attributes:
        pid: Its pid as this process sees it.
        ns_pid: Its pid in its own PID namespace.
        ppid: Its parent's pid as this process sees it.
        comm: Name of its main thread.
        state: One letter, as in `snaplib.kernel.ProcessStat`.
        threads: Ids of its threads as this process sees them.
        start_ticks: Clock ticks since boot; with the pid, the name of one process.
    """

    pid: int
    ns_pid: int
    ppid: int
    comm: str
    state: str
    threads: tuple[int, ...]
    start_ticks: int = 0


class ProcessTree:
    """A process and all its descendants; the process is held, so that nobody who gets its pid is taken for it.

    Args:
        pid: The root's pid as this process sees it; 0 for one that has ended already.
        procfs: Where the processes are seen.

    Raises:
        NoSuchTask: There is no such process.
    """

    def __init__(self, pid: int, procfs: ProcFs | None = None) -> None:
        self.pid = pid
        self.procfs = procfs if procfs is not None else ProcFs()
        self._pidfd = -1
        self._closed = False
        #: Clock ticks since boot: with the pid, the name of one process while the host is up.
        self.start_time = 0
        #: The root's pid in its own PID namespace.
        self.ns_pid = 0
        if pid == NOBODY:
            return
        try:
            # The pidfd first: what is asked afterwards is about the process that it holds.
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            raise NoSuchTask(f"there is no process {pid}") from None
        self._close_pidfd = weakref.finalize(self, os.close, self._pidfd)
        try:
            self.start_time = self.procfs.stat(pid).start_ticks
            self.ns_pid = self.procfs.status(pid).ns_pids[-1]
        except ProcessLookupError:
            raise NoSuchTask(f"there is no process {pid}") from None

    def close(self) -> None:
        """Let go of it; it runs on.  May be called again; nothing else may."""
        self._closed = True
        if self._pidfd >= 0:
            self._close_pidfd()

    def alive(self) -> bool:
        """Return whether the root has not ended; a zombie has.

        Raises:
            UsageError: It was let go of, so that nobody knows.
        """
        self._check_open()
        return self._pidfd >= 0 and not self._root_ends(0.0)

    def members(self) -> tuple[Member, ...]:
        """Return the processes of the task, the root first, parents before children.

        Raises:
            TaskEnded: The root has ended.
        """
        found = []
        for pid in self._tree():
            with contextlib.suppress(ProcessLookupError):
                status = self.procfs.status(pid)
                found.append(
                    Member(
                        pid=pid,
                        ns_pid=status.ns_pids[-1],
                        ppid=status.ppid,
                        comm=status.name,
                        state=status.state,
                        threads=self.procfs.threads(pid),
                        start_ticks=self.procfs.stat(pid).start_ticks,
                    )
                )
        self._check_alive()
        return tuple(found)

    def is_member(self, member: Member) -> bool:
        """Return whether a process that was a member is still there, neither dead nor being killed."""
        try:
            stat = self.procfs.stat(member.pid)
            killed = self.procfs.status(member.pid).killed
        except ProcessLookupError:
            return False
        return stat.start_ticks == member.start_ticks and not (stat.zombie or killed)

    def threads(self) -> tuple[int, ...]:
        """Return the ids of all threads of all members, as this process sees them.

        Raises:
            TaskEnded: The root has ended.
        """
        return tuple(tid for member in self.members() for tid in member.threads)

    def group_and_session(self, member: Member) -> dict[str, int]:
        """Return a member's process group and session as the task sees them, 0 where it cannot."""
        try:
            status = self.procfs.status(member.pid)
        except ProcessLookupError:
            return {"group": 0, "session": 0}
        return {"group": status.ns_process_groups[-1], "session": status.ns_sessions[-1]}

    def session_leader_outside(self) -> bool:
        """Return whether the root's session is led by a process that is not part of the task."""
        leader = self.procfs.stat(self.pid).session
        return leader not in self._tree()

    def thread_ids(self) -> dict[int, int]:
        """Return the id of each thread in the task's own PID namespace, by its id as seen here.

        Raises:
            TaskEnded: The root has ended.
        """
        found = {}
        for member in self.members():
            for tid in member.threads:
                with contextlib.suppress(ProcessLookupError):
                    found[tid] = self.procfs.thread_status(member.pid, tid).ns_pids[-1]
        return found

    def affinity(self) -> dict[int, frozenset[int]]:
        """Return the CPUs each thread may run on, by its id in the task's own PID namespace.

        CRIU does not save it: see sched_setaffinity(2) for putting it back after a restore.

        Raises:
            TaskEnded: The root has ended.
        """
        found = {}
        for member in self.members():
            for tid in member.threads:
                with contextlib.suppress(ProcessLookupError):
                    status = self.procfs.thread_status(member.pid, tid)
                    found[status.ns_pids[-1]] = status.cpus_allowed
        return found

    def _tree(self) -> tuple[int, ...]:
        self._check_alive()
        try:
            return self.procfs.tree(self.pid)
        except ProcessLookupError:
            raise TaskEnded(f"the task {self.pid} has ended") from None

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError(f"the task {self.pid} was closed", hint="attach to it again")

    def _check_alive(self) -> None:
        if not self.alive():
            raise TaskEnded(f"the task {self.pid} has ended")

    def _root_ends(self, timeout_s: float | None) -> bool:
        """Wait until the root has ended; return whether it has."""
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        return bool(poller.poll(milliseconds(timeout_s)))
