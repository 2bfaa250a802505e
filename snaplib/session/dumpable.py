"""What a session is told while its task is dumped."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from snaplib.errors import TaskEnded
from snaplib.session.handle import SessionHandle, streams_of
from snaplib.session.record import Backlog, StreamsRecord

__all__ = ["DumpableSession"]


class DumpableSession(SessionHandle):
    """A session whose task can be dumped; see `SessionHandle`."""

    def hold(self, *, thaw: Sequence[tuple[str, str]] = (), sends_continue: bool = False) -> None:
        """Tell that a dump begins: the root's death by SIGKILL is not the task's end any more.

        If this process dies before `release` or `saved`, the init undoes the freeze, and the task
        goes on.

        Args:
            thaw: Files and what to write to them to let the task run again, for example a cgroup's
                freezer.
            sends_continue: Send SIGCONT to all of the task for that.

        Raises:
            SnaplibError: Another dump is being made.
        """
        self._control.ask("hold", thaw=list(thaw), sends_continue=sends_continue)

    def drain(self, deadline_s: float) -> tuple[Backlog, StreamsRecord]:
        """Pass on what the stopped task has written, and tell what is left; after that nothing
        moves.

        Between `hold` and `release` or `saved` only. The task must be frozen.

        Args:
            deadline_s: How long to wait for those who read the output.

        Returns:
            What could not be passed on, or was not read by the task, and the streams as they are
            now.
        """
        answer, fds = self._control.ask("drain", deadline_s=deadline_s, timeout_s=deadline_s + 30.0)
        contents = []
        for fd in fds:
            with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
                file.seek(0)
                contents.append(file.read())
        backlog = Backlog(
            inputs={int(fd): contents[index] for fd, index in answer["inputs"].items()},
            outputs={int(fd): contents[index] for fd, index in answer["outputs"].items()},
        )
        return backlog, streams_of(answer)

    def release(self, *, ended: bool = False) -> None:
        """Tell that no dump is being made any more: the task, already thawed, goes on, nothing lost or doubled.

        Args:
            ended: It does not: after `saved` it was killed, though it may take it a while to die.
        """
        self._control.ask("release", ended=ended)

    def saved(self, snapshot: str, *, end: bool = True) -> None:
        """Tell that the dump is committed: a snapshot has taken the task's place.

        Args:
            snapshot: Its id.
            end: Let the init kill the task; otherwise someone does, and `release` says so.
        """
        with contextlib.suppress(TaskEnded):
            self._control.ask("saved", snapshot=snapshot, end=end)
