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
from typing import TYPE_CHECKING, Any, Self

import attrs

from snaplib.attachment import check_attachable
from snaplib.errors import NoSuchTask, RootRequired, TaskEnded
from snaplib.kernel.freezer import choose_freezer
from snaplib.kernel.procfs import ProcFs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from snaplib.kernel.cgroup import TaskCgroup
    from snaplib.kernel.freezer import Freezer
    from snaplib.session import ExitStatus, Session

__all__ = ["Frozen", "Member", "Task", "default_key"]


#: The pid of a task that ended before anybody could look at it.
_NOBODY = 0


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
        pid: The root's pid as this process sees it; 0 for one whose session has ended already.
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
        if pid == _NOBODY and session is not None:
            self._pidfd, self.start_time, self.ns_pid = -1, 0, session.root_pid
            return
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
        return cls(pid, procfs=found, session=_session_of(found, pid))

    @classmethod
    def launch(
        cls,
        command: Sequence[str],
        *,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        append: bool = False,
        name: str | None = None,
        key: str | None = None,
        interactive: bool = False,
        adopt_orphans: bool = False,
    ) -> Self:
        """Start a command in a PID namespace of its own, under a small init that outlives us.

        Args:
            command: The program and its arguments.
            stdin: None inherits ours; a path, a descriptor, a file object or subprocess.DEVNULL.
            stdout: The same; a path is opened for the task itself.
            stderr: The same, or subprocess.STDOUT.
            cwd: Where it starts; here by default.
            env: Its environment; ours by default.
            append: Open paths for output at their end instead of emptying them.
            name: The name of its session; made up by default.
            key: What its snapshots are found by; derived from folder and command by default.
            interactive: The caller will enter ``session.raw_terminal()``; until then the terminal,
                if there is one, stands still.
            adopt_orphans: Processes that lose their parent, such as daemons, become children of the
                command, so that they are saved with it; see `Session.start`.

        Raises:
            CommandNotFound: There is no such program.
            CommandNotExecutable: It cannot be executed.
            RootRequired: No privilege to make namespaces.
            HostUnfit: The kernel refused to.
            UsageError: ``cwd`` is no folder, or a path cannot be opened.
        """
        from snaplib.session import Session  # noqa: PLC0415

        session = Session.start(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env=env,
            append=append,
            name=name,
            key=key,
            interactive=interactive,
            adopt_orphans=adopt_orphans,
        )
        return cls.of_session(session)

    @classmethod
    def of_session(cls, session: Session) -> Self:
        """Return the task of a session; if that has ended already, a task that only knows how.

        Args:
            session: The session.
        """
        try:
            return cls(session.root_host_pid, session=session)
        except (NoSuchTask, TaskEnded):
            return cls(_NOBODY, session=session)

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
        if self._pidfd >= 0:
            self._close_pidfd()

    def alive(self) -> bool:
        """Return whether the root has not ended; a zombie has."""
        return self._pidfd >= 0 and not _readable(self._pidfd, 0.0)

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

    @property
    def command(self) -> tuple[str, ...]:
        """What was run, as far as it is known."""
        return self.session.command if self.session is not None else self.procfs.cmdline(self.pid)

    @property
    def cwd(self) -> str:
        """Where it was started, or, of a task that was attached to, where it is."""
        if self.session is not None:
            return self.session.cwd
        return self.procfs.cwd(self.pid) or "/"

    @property
    def key(self) -> str:
        """What its snapshots are found by."""
        named = self.session.key if self.session is not None else None
        return named or default_key(self.command, self.cwd)

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
        deadline = freezer.freeze(deadline_s)
        try:
            yield Frozen(freezer.kind, deadline)
        finally:
            freezer.thaw()

    def signal(self, number: int) -> None:
        """Send a signal to the root.

        Raises:
            TaskEnded: It has ended.
            RootRequired: This process may not signal it.
        """
        self._check_alive()
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


def default_key(command: Sequence[str], cwd: str | os.PathLike[str]) -> str:
    """Return the key of a command in a folder: its name for people, and a hash of both.

    Args:
        command: The command and its arguments.
        cwd: The folder it runs in.
    """
    import blake3  # noqa: PLC0415  most that watch a task need no key; hashlib would bring OpenSSL, 3 MB

    words = "\0".join([os.fspath(cwd), *command])
    digest = blake3.blake3(words.encode("utf-8", "surrogateescape")).hexdigest()
    name = os.path.basename(command[0]) if command else "task"  # noqa: PTH119 - no need for a Path
    return f"{''.join(c if c.isalnum() or c in '._-' else '_' for c in name)[:40]}-{digest[:12]}"


def _session_of(procfs: ProcFs, pid: int) -> Session | None:
    """Return the session whose task's root this is; None when there is none."""
    # Each is in a PID namespace of its own. Most that are attached to are not, and need not know of sessions.
    with contextlib.suppress(OSError):
        if procfs.namespaces(pid).get("pid") == procfs.namespaces(os.getpid()).get("pid"):
            return None
    from snaplib.session import Session  # noqa: PLC0415

    return Session.of_root(pid)


def _readable(descriptor: int, timeout_s: float | None) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(None if timeout_s is None else timeout_s * 1000))
