"""What a session can be asked for over its control socket, and what happens when whoever asked is gone."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snaplib.session.nsinit.flow import Flow
    from snaplib.session.nsinit.init import Init
    from snaplib.session.nsinit.server import Connection

__all__ = ["Requests"]

#: How long a session that is told to end tries to pass on what the task wrote.
_LAST_DELIVERY_S = 1.0


class Requests:
    """The requests of all clients.

    Args:
        init: The init they are for.
    """

    def __init__(self, init: Init) -> None:
        self._init = init
        #: Who is making a dump; while it does, the root's death by SIGKILL is CRIU's doing.
        self.holder: Connection | None = None
        #: The snapshot that took the task's place.
        self.saved_as: str | None = None
        #: When a drain gives up, by time.monotonic().
        self.deadline: float | None = None
        self._drains_for: Connection | None = None
        self._thaw: list[tuple[str, str]] = []
        self._continue = False

    def flows(self) -> list[Flow]:
        """Return the flows that may move now."""
        streams = self._init.streams
        return streams.outputs() if self._drains_for is not None else streams.active()

    def handle(self, connection: Connection, request: dict[str, Any], fds: list[int]) -> None:
        """Do what is asked for.

        Raises:
            LookupError: There is no such request.
            OSError: It failed.
            ValueError: It cannot be done now.
        """
        do = getattr(self, f"_do_{request['do']}", None)
        if do is None:
            raise LookupError(f"no such request: {request['do']}")
        do(connection, request, fds)

    def client_gone(self, connection: Connection) -> None:
        """A client has gone: whatever it began is undone, or, after a commit, finished."""
        if self._drains_for is connection:
            self._drains_for = self.deadline = None
        if self.holder is connection:
            if self.saved_as is not None:
                self._end_saved()
            else:
                self._let_go()
        if connection.is_owner:
            if self._init.state == "restoring":
                self._init.maker_gone()
            self._init.streams.leave_terminal()

    def tick(self) -> None:
        """Go on with a drain."""
        connection = self._drains_for
        if connection is None or self.deadline is None:
            return
        moving = [flow.pump() or flow.stuck for flow in self._init.streams.outputs()]
        if any(moving) and time.monotonic() < self.deadline:
            return
        self._drains_for = self.deadline = None
        inputs, outputs = self._init.streams.leftovers()
        files: list[int] = []
        answer: dict[str, Any] = {"drained": not any(moving)}
        for name, leftovers in (("inputs", inputs), ("outputs", outputs)):
            answer[name] = {}
            for first_fd, data in leftovers.items():
                if data:
                    answer[name][first_fd] = len(files)
                    files.append(_memory_file(data))
        connection.answer(answer | self._init.describe(), files)
        for fd in files:
            os.close(fd)

    # -- the requests; named by `do`

    def _do_status(self, connection: Connection, _request: dict[str, Any], _fds: list[int]) -> None:
        connection.answer(self._init.describe())

    def _do_hold(self, connection: Connection, request: dict[str, Any], _fds: list[int]) -> None:
        if self.holder not in (None, connection):
            raise ValueError("another dump is being made")
        if self._init.state != "running":
            raise ValueError(f"the session is {self._init.state}")
        self.holder = connection
        self._thaw = [(path, text) for path, text in request["thaw"]]
        self._continue = bool(request["sends_continue"])
        connection.answer(self._init.describe())

    def _do_release(self, connection: Connection, request: dict[str, Any], _fds: list[int]) -> None:
        self._check_holder(connection)
        self._thaw, self._continue = [], False
        if self.saved_as is not None and request.get("ended"):
            # CRIU has killed the task; its last thread may still be on its way out.
            self._end_saved()
        else:
            if self._init.root_status is None:
                # Committed or not: the task goes on, so nothing has taken its place.
                self.saved_as = None
            self._let_go()
        connection.answer(self._init.describe())

    def _do_saved(self, connection: Connection, request: dict[str, Any], _fds: list[int]) -> None:
        self._check_holder(connection)
        self.saved_as = str(request["snapshot"])
        connection.answer(self._init.describe())
        if request["end"]:
            self._end_saved()

    def _do_drain(self, connection: Connection, request: dict[str, Any], _fds: list[int]) -> None:
        self._check_holder(connection)
        self._init.streams.paused = True
        self.deadline = time.monotonic() + float(request["deadline_s"])
        self._drains_for = connection

    def _do_streams(self, connection: Connection, _request: dict[str, Any], fds: list[int]) -> None:
        self._init.streams.change_outer(fds)
        connection.is_owner = True
        connection.answer(self._init.describe())

    def _do_foreground(
        self, connection: Connection, request: dict[str, Any], _fds: list[int]
    ) -> None:
        streams = self._init.streams
        streams.foreground, streams.awaits_raw = bool(request["on"]), False
        streams.resize()
        connection.answer({})

    def _do_resize(self, connection: Connection, _request: dict[str, Any], _fds: list[int]) -> None:
        self._init.streams.resize()
        connection.answer({})

    def _do_terminate(
        self, connection: Connection, _request: dict[str, Any], _fds: list[int]
    ) -> None:
        self.holder = None
        connection.answer({})
        self._init.begin_ending(deadline_s=_LAST_DELIVERY_S)
        self._thaw_task()

    def _do_inherit(
        self, connection: Connection, _request: dict[str, Any], _fds: list[int]
    ) -> None:
        streams = [s for s in self._init.streams.streams if s.key and s.task_end >= 0]
        connection.answer(
            {"streams": [s.fds[0] for s in streams]}, [stream.task_end for stream in streams]
        )

    def _do_expect_root(
        self, connection: Connection, request: dict[str, Any], _fds: list[int]
    ) -> None:
        if self._init.state != "restoring":
            raise ValueError(f"the session is {self._init.state}")
        self._init.expected_root = int(request["root_pid"])
        connection.answer(self._init.describe())

    def _do_adopt_root(
        self, connection: Connection, request: dict[str, Any], _fds: list[int]
    ) -> None:
        if self._init.state != "restoring":
            raise ValueError(f"the session is {self._init.state}")
        self._init.adopt(int(request["root_pid"]))
        connection.answer(self._init.describe())

    # -- parts of them

    def _check_holder(self, connection: Connection) -> None:
        if self.holder is not connection:
            raise ValueError("no dump is being made by this client")

    def _let_go(self) -> None:
        """No dump is being made any more: the task goes on, or has ended."""
        self.holder = None
        self._thaw_task()
        if self.saved_as is not None:
            # What has not been passed on is part of the snapshot.
            return
        if self._init.root_status is not None:
            if self._init.state != "ending":
                self._init.begin_ending()
            return
        self._init.streams.resume()
        for flow in self.flows():
            flow.pump()

    def _end_saved(self) -> None:
        """The snapshot takes the task's place."""
        self.holder = None
        self._init.kill_all(signal.SIGKILL)
        self._thaw_task()

    def _thaw_task(self) -> None:
        """Undo the freeze that the holder told us of, in case it cannot any more."""
        for path, text in self._thaw:
            with contextlib.suppress(OSError):
                Path(path).write_text(text)
        if self._continue:
            self._init.kill_all(signal.SIGCONT)


def _memory_file(data: bytes) -> int:
    fd = os.memfd_create("backlog", os.MFD_CLOEXEC)
    while data:
        data = data[os.write(fd, data) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
