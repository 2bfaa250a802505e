"""The running task: a process tree, known by its root.

A `Task` is a live object. Its root is held by a pidfd and its start time, so that a pid that is
used again for something else is never taken for it. What it says of the task's processes are
records that cannot change.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal as signals
import time
import weakref
from typing import TYPE_CHECKING, Self

import attrs

from snaplib.attachment import check_attachable
from snaplib.errors import NoSuchTask, RootRequired, TaskEnded
from snaplib.kernel.freezer import choose_freezer
from snaplib.kernel.procfs import ProcFs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snaplib.kernel.cgroup import TaskCgroup
    from snaplib.kernel.freezer import Freezer
    from snaplib.session import ExitStatus, Session

__all__ = ["Frozen", "Member", "Task"]


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
    """

    pid: int
    ns_pid: int
    ppid: int
    comm: str
    state: str
    threads: tuple[int, ...]


@attrs.frozen
class Frozen:
    """What a frozen task is held by.

    Attributes:
        kind: ``cgroup-v2``, ``cgroup-v1`` or ``stop``.
        deadline: When it runs again at the latest, in seconds of ``time.monotonic()``.
    """

    kind: str
    deadline: float

    @property
    def remaining_s(self) -> float:
        """Seconds left until the deadline, negative after it."""
        return self.deadline - time.monotonic()


class Task:
    """A running process tree.

    Use `attach` (or `launch`) rather than the constructor, which checks nothing.

    Args:
        pid: The root's pid as this process sees it.
        procfs: Where the processes are seen.
        session: What the task runs in, if snaplib started it.
        cgroup: The one that was made for the task, if any.

    Raises:
        NoSuchTask: There is no such process.
    """

    def __init__(
        self,
        pid: int,
        *,
        procfs: ProcFs | None = None,
        session: Session | None = None,
        cgroup: TaskCgroup | None = None,
    ) -> None:
        self.pid = pid
        self.procfs = procfs if procfs is not None else ProcFs()
        self.session = session
        self.cgroup = cgroup
        self._freezer: Freezer | None = None
        try:
            # The pidfd first: what is asked afterwards is about the process that it holds.
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            raise NoSuchTask(f"there is no process {pid}") from None
        self._close_pidfd = weakref.finalize(self, os.close, self._pidfd)
        try:
            #: Clock ticks since boot: with the pid, the name of one process while the host is up.
            self.start_time = self.procfs.stat(pid).start_ticks
            #: The root's pid in its own PID namespace.
            self.ns_pid = self.procfs.status(pid).ns_pids[-1]
        except ProcessLookupError:
            raise NoSuchTask(f"there is no process {pid}") from None

    @classmethod
    def attach(cls, pid: int, *, procfs: ProcFs | None = None) -> Task:
        """Return the task whose root is a process that runs already.

        Args:
            pid: The root's pid as this process sees it.
            procfs: Where the processes are seen.

        Raises:
            NoSuchTask: No process has this pid, or a thread has it.
            RootRequired: It belongs to someone else.
            CannotDump: It is a kernel thread, a zombie, init, this process or its ancestor.
        """
        found = procfs if procfs is not None else ProcFs()
        check_attachable(found, pid)
        return cls(pid, procfs=found)

    def __repr__(self) -> str:
        return f"Task({self.pid})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the task; it runs on."""
        if self._freezer is not None:
            self._freezer.close()
            self._freezer = None
        self._close_pidfd()

    def alive(self) -> bool:
        """Return whether the root has not ended; a zombie has."""
        return not _readable(self._pidfd, 0.0)

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
                    )
                )
        self._check_alive()
        return tuple(found)

    def threads(self) -> tuple[int, ...]:
        """Return the ids of all threads of all members, as this process sees them.

        Raises:
            TaskEnded: The root has ended.
        """
        return tuple(tid for member in self.members() for tid in member.threads)

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

    @contextlib.contextmanager
    def frozen(self, deadline_s: float = 10.0) -> Iterator[Frozen]:
        """Stop the whole task while the block runs.

        It runs again when the block is left, and at the latest after the deadline, even when this
        process hangs or is killed meanwhile. Not for around a dump: CRIU freezes for itself.

        Args:
            deadline_s: How long it may stand still, the time it takes to stop it included.

        Raises:
            DeadlineExceeded: It could not be stopped in time, or the block took too long. The
                task runs.
            RootRequired: This process may not stop it.
            TaskEnded: It has ended.
        """
        self._check_alive()
        freezer = self._choose_freezer()
        deadline = time.monotonic() + deadline_s
        freezer.freeze(deadline_s)
        try:
            yield Frozen(freezer.kind, deadline)
        finally:
            freezer.thaw()

    def signal(self, number: int) -> None:
        """Send a signal to the root; in a session, through its init, to the root's group.

        Raises:
            TaskEnded: It has ended.
            RootRequired: This process may not signal it.
        """
        try:
            if self.session is not None:
                self.session.signal(number)
            else:
                signals.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            raise TaskEnded(f"the task {self.pid} has ended") from None
        except PermissionError:
            raise RootRequired(f"pid {self.pid} may not be signalled by this user") from None

    def wait(self, timeout_s: float | None = None) -> ExitStatus | None:
        """Wait until the task has ended.

        Args:
            timeout_s: How long at most; for ever by default.

        Returns:
            How it ended; None for a task that was attached to, of which only its parent is told.

        Raises:
            TimeoutError: It runs on.
        """
        if self.session is not None:
            return self.session.wait(timeout_s)
        if not _readable(self._pidfd, timeout_s):
            raise TimeoutError(f"the task {self.pid} still runs after {timeout_s} s")
        return None

    def _choose_freezer(self) -> Freezer:
        chosen = choose_freezer(self.procfs, self.pid, self.cgroup)
        # The same kind as last time: keep it, its guardian runs already.
        if self._freezer is None or self._freezer.key != chosen.key:
            if self._freezer is not None:
                self._freezer.close()
            self._freezer = chosen
        return self._freezer

    def _tree(self) -> tuple[int, ...]:
        self._check_alive()
        try:
            return self.procfs.tree(self.pid)
        except ProcessLookupError:
            raise TaskEnded(f"the task {self.pid} has ended") from None

    def _check_alive(self) -> None:
        if not self.alive():
            raise TaskEnded(f"the task {self.pid} has ended")


def _readable(descriptor: int, timeout_s: float | None) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(None if timeout_s is None else timeout_s * 1000))
