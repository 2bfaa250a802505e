"""What can be done with a running task."""

from __future__ import annotations

import contextlib
import os
import signal as signals
from typing import TYPE_CHECKING, Any, Self

from snaplib.arguments import number, whole
from snaplib.attachment import check_attachable
from snaplib.errors import NoSuchTask, RootRequired, StillRunning, TaskEnded, UsageError
from snaplib.kernel.procfs import ProcFs
from snaplib.task.freezing import Freezing
from snaplib.task.key import default_key
from snaplib.task.tree import NOBODY, ProcessTree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from snaplib.kernel.cgroup import TaskCgroup
    from snaplib.session import ExitStatus, Session
    from snaplib.task.freezing import Frozen

__all__ = ["Task"]


class Task(ProcessTree):
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
        super().__init__(pid, procfs)
        self.session = session
        self.cgroup = cgroup
        self._freezing = Freezing(self.procfs, pid)
        if pid == NOBODY and session is not None:
            self.ns_pid = session.root_pid

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
            WrongType: The pid is no whole number.
        """
        pid = whole("pid", pid)
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
            UsageError: ``cwd`` is no folder, a path cannot be opened, or an argument is not what it can be.
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
            return cls(NOBODY, session=session)

    def __repr__(self) -> str:
        return f"Task({self.pid})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the task, and of its session; it runs on.  May be called again; nothing else may."""
        self._freezing.close()
        if self.session is not None:
            self.session.close()
        super().close()

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
        number("deadline_s", deadline_s, least=0.0, finite=True)
        self._check_alive()
        with self._freezing.frozen(deadline_s, self.cgroup) as frozen:
            yield frozen

    def signal(self, number: int) -> None:
        """Send a signal to the root.

        Args:
            number: Which; 0 only looks whether it could be sent.

        Raises:
            UsageError: There is no such signal.
            TaskEnded: It has ended.
            RootRequired: This process may not signal it.
        """
        wanted = whole("number", number)
        if wanted != 0 and wanted not in signals.valid_signals():
            raise UsageError(f"there is no signal {wanted}")
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
            timeout_s: How long at most, in seconds; for ever by default.

        Returns:
            How it ended; None for a task that was attached to, of which only its parent is told.

        Raises:
            StillRunning: It runs on; a TimeoutError.
            UsageError: The task was closed.
        """
        self._check_open()
        if self.session is not None:
            return self.session.wait(timeout_s)
        if not self._root_ends(timeout_s):
            raise StillRunning(f"the task {self.pid} still runs after {timeout_s} s")
        return None


def _session_of(procfs: ProcFs, pid: int) -> Session | None:
    """Return the session whose task's root this is; None when there is none."""
    # Each is in a PID namespace of its own. Most that are attached to are not, and need not know of sessions.
    with contextlib.suppress(OSError):
        if procfs.namespaces(pid).get("pid") == procfs.namespaces(os.getpid()).get("pid"):
            return None
    from snaplib.session import Session  # noqa: PLC0415

    return Session.of_root(pid)
