"""What everybody who has a session can do with it: look at it, wait for its end, and end it."""

from __future__ import annotations

import contextlib
import os
import select
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from snaplib.arguments import milliseconds
from snaplib.errors import StillRunning, TaskEnded, UsageError
from snaplib.session import registry
from snaplib.session.record import ExitStatus, StreamRecord, StreamsRecord
from snaplib.session.terminal import RawTerminal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from snaplib.session.control import Control
    from snaplib.session.outer import Outer

__all__ = ["SessionHandle", "streams_of"]


class SessionHandle:
    """A session that runs, or has just ended.

    Args:
        record: What its folder says.
        folder: Its folder.
        control: A connection to its init.
        pidfd: Its init, ours to close; readable when the session has ended.
    """

    def __init__(
        self, record: registry.SessionRecord, folder: Path, control: Control, pidfd: int
    ) -> None:
        self._record = record
        self._control = control
        self._root_pid = record.root_pid
        self._terminal = -1
        self.folder = folder
        self.pidfd = pidfd

    @property
    def name(self) -> str:
        """The session's name."""
        return self._record.name

    @property
    def init_pid(self) -> int:
        """The init of its PID namespace, as whoever started it sees it; `pidfd` is the same process."""
        return self._record.host_pid

    @property
    def key(self) -> str | None:
        """What the task's snapshots are looked up by."""
        return self._record.key

    @property
    def command(self) -> tuple[str, ...]:
        """What was run."""
        return self._record.command

    @property
    def cwd(self) -> str:
        """Where it was run."""
        return self._record.cwd

    @property
    def host_pid(self) -> int:
        """The init's pid, as seen here."""
        return self._record.host_pid

    @property
    def root_pid(self) -> int:
        """The pid of the task's root in the session's namespace; 0 before a restore is finished."""
        return self._root_pid

    @property
    def root_host_pid(self) -> int:
        """The pid of the task's root, as seen here.

        Raises:
            TaskEnded: There is no such process any more.
        """
        # proc_pid_children(5) needs CONFIG_PROC_CHILDREN, as CRIU does.
        children = Path(f"/proc/{self.host_pid}/task/{self.host_pid}/children")
        with contextlib.suppress(OSError):
            for pid in map(int, children.read_text().split()):
                if _pid_inside(pid) == self._root_pid:
                    return pid
        raise TaskEnded(f"the task of session {self.name} has ended")

    @property
    def alive(self) -> bool:
        """Whether the session's init runs."""
        return self._record.alive

    def enter_prefix(self) -> list[str]:
        """Return what to put before a command to run it in the session's PID and mount namespaces."""
        return ["nsenter", "-t", str(self.host_pid), "-p", "-m", "--"]

    def streams(self) -> StreamsRecord:
        """Return the streams as they are now."""
        return streams_of(self._control.ask("status")[0])

    def status(self) -> dict[str, Any]:
        """Return what the init tells about itself."""
        return self._control.ask("status")[0]

    def raw_terminal(self) -> RawTerminal:
        """Return what makes our terminal raw while the task has one of its own, for a `with` block.

        Only inside it are keys taken from the terminal.
        """
        return RawTerminal(self._control, self._terminal)

    def signal(self, number: int) -> None:
        """Send a signal to the root's process group, through the init."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.host_pid, number)

    def terminate(self) -> None:
        """Kill everything in the session."""
        with contextlib.suppress(TaskEnded):
            self._control.ask("terminate")

    def wait(self, timeout_s: float | None = None) -> ExitStatus:
        """Wait for the end of the session.

        Works for whoever found the session too.

        Raises:
            StillRunning: It has not ended yet; a TimeoutError.
        """
        if self.pidfd < 0:
            raise UsageError(f"the session {self.name} was closed")
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        if not poll.poll(milliseconds(timeout_s)):
            raise StillRunning(f"session {self.name} has not ended after {timeout_s} s")
        return registry.read_status(self.folder) or ExitStatus(signal=registry.KILLED)

    def cleanup(self) -> None:
        """Remove the folder of a session that has ended, and close what we have of it."""
        if not self.alive:
            registry.remove(self.folder)
        self.close()

    def discard(self, timeout_s: float = 10.0) -> None:
        """Kill everything in the session, wait for its end and remove what is left of it.

        Args:
            timeout_s: How long to wait.
        """
        self.terminate()
        with contextlib.suppress(TimeoutError):
            self.wait(timeout_s)
        self.cleanup()

    def close(self) -> None:
        """Let go of the session, which goes on."""
        self._control.close()
        for fd in (self.pidfd, self._terminal):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self._terminal = -1

    def __del__(self) -> None:
        # Sockets close themselves when nobody has them any more, numbers do not.
        with contextlib.suppress(AttributeError, OSError):
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keep_terminal(self, outer: Outer) -> None:
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1
        has_pty = any(stream.kind == "terminal" for stream in self._record.streams.streams)
        if has_pty and outer.terminal >= 0:
            self._terminal = os.dup(outer.terminal)


def streams_of(answer: Mapping[str, Any]) -> StreamsRecord:
    """Return the streams that an answer of the init describes."""
    return StreamsRecord(tuple(StreamRecord.from_json(stream) for stream in answer["streams"]))


def _pid_inside(host_pid: int) -> int:
    """Return a process's pid in its innermost namespace; 0 when it has gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{host_pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return 0
