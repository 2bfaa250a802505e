"""One stream of the task, for one or more of its descriptors 0, 1 and 2: a pipe, a terminal, or nothing of ours."""

from __future__ import annotations

import fcntl
import os
from typing import Any

from snaplib.kernel.isolation import tee
from snaplib.session.nsinit.ends import End, open_end
from snaplib.session.nsinit.flow import Flow
from snaplib.session.nsinit.outer import began_anew, identity
from snaplib.session.nsinit.terminal import Terminal

__all__ = ["Stream"]


class Stream:
    """A stream between the task and the outside.

    Args:
        kind: direct, pipe or terminal.
        fds: The task's descriptors it is for.
        outer: What `outer.identity` tells about its outer end.
        task_end: The descriptor the task gets.
    """

    def __init__(self, kind: str, fds: list[int], outer: dict[str, Any], task_end: int) -> None:
        self.kind = kind
        self.fds = fds
        self.outer = outer
        self.task_end = task_end
        self.key: str | None = None
        self.input: Flow | None = None
        self.output: Flow | None = None
        self.terminal: Terminal | None = None
        #: What was typed before a restore, for the terminal to get when its modes are restored.
        self.typed = b""
        self._inner = -1

    @classmethod
    def direct(cls, fds: list[int], outer: dict[str, Any], task_end: int) -> Stream:
        """Make a stream that the task has itself."""
        return cls("direct", fds, outer, task_end)

    @classmethod
    def pipe(
        cls,
        fds: list[int],
        outer: dict[str, Any],
        outer_fd: int,
        *,
        pending: bytes = b"",
        skip_bytes: int = 0,
    ) -> Stream:
        """Make a pipe to or from the task, and the flow between it and `outer_fd`."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        inbound = fds == [0]
        ours, task_end = (writing, reading) if inbound else (reading, writing)
        os.set_blocking(ours, False)
        stream = cls("pipe", fds, outer, task_end)
        stream.key = f"pipe:[{os.fstat(ours).st_ino}]"
        # Names the pipe without counting as one of its readers or writers.
        stream._inner = os.open(f"/proc/self/fd/{ours}", os.O_PATH | os.O_CLOEXEC)
        near, far = End(ours, "pipe"), open_end(outer_fd, writing=not inbound)
        near.enlarge()
        if inbound:
            stream.input = Flow(far, near, pending=pending, skip_bytes=skip_bytes)
        else:
            stream.output = Flow(near, far, pending=pending)
        return stream

    @classmethod
    def pty(
        cls,
        fds: list[int],
        outer: dict[str, Any],
        *,
        input_fd: int,
        output_fd: int,
        pending: bytes = b"",
    ) -> Stream:
        """Make a terminal for the task, and the flows between it and the outer one.

        Args:
            fds: The task's descriptors it is for.
            outer: What is known of the outer terminal.
            input_fd: Where what is typed comes from; -1: nowhere.
            output_fd: Where what is shown goes; -1: nowhere.
            pending: What is to be shown first.
        """
        terminal = Terminal()
        stream = cls("terminal", fds, outer, os.dup(terminal.slave))
        stream.key = terminal.key
        stream.terminal = terminal
        keyboard, screen = open_end(input_fd, writing=False), open_end(output_fd, writing=True)
        stream.input = Flow(keyboard, terminal.end(), keeps_sink=True)
        stream.output = Flow(terminal.end(), screen, survives_sink=True, pending=pending)
        return stream

    @property
    def flows(self) -> list[Flow]:
        """The flows there are."""
        return [flow for flow in (self.input, self.output) if flow is not None]

    @property
    def direction(self) -> str:
        """Return in, out or both, as seen by the task."""
        if self.fds == [0]:
            return "both" if self.kind == "terminal" else "in"
        return "both" if self.kind == "terminal" else "out"

    def describe(self) -> dict[str, Any]:
        """Return the fields of `snaplib.session.record.StreamRecord` as they are now."""
        outer = dict(self.outer)
        outer["delivered_bytes"] = outer.get("delivered_bytes", 0) + self._counted_bytes()
        ended = (self.input is not None and self.input.source is None) or (
            self.kind == "pipe" and self.output is not None and self.output.source is None
        )
        return {
            "kind": self.kind,
            "fds": self.fds,
            "direction": self.direction,
            "key": self.key,
            "ended": ended,
            "outer": outer,
        }

    def _counted_bytes(self) -> int:
        """How much has gone to the outer end, or was taken from it, since the flows were made."""
        if self.output is not None:
            return self.output.delivered_bytes
        if self.input is not None:
            return self.input.delivered_bytes + len(self.input.pending)
        return 0

    def go_on_in(self, outer_fd: int) -> None:
        """Count from now on what goes to another outer end; in the same file, behind what is there."""
        was, now = self.describe()["outer"], identity(outer_fd)
        same = now["kind"] == was["kind"] == "file" and (now["device"], now["inode"]) == (
            was["device"],
            was["inode"],
        )
        if same and not now["appends"] and self.output is not None:
            os.lseek(outer_fd, was["start_bytes"] + was["delivered_bytes"], os.SEEK_SET)
            now |= {name: was[name] for name in ("start_bytes", "delivered_bytes")}
        if self.input is not None:
            now["delivered_bytes"] = was["delivered_bytes"] - len(self.input.pending)
            if began_anew(was, now):
                self.input.skip_bytes = was["delivered_bytes"]
        self.outer = now
        for flow in self.flows:
            flow.delivered_bytes = 0

    def close_task_end(self) -> None:
        """Give up our copy of the task's end, now that the task has it: only then do ends of streams show."""
        if self.task_end >= 0:
            os.close(self.task_end)
            self.task_end = -1

    def unread(self) -> bytes:
        """Return what came for the task and was not read by it; all of it stays where it is."""
        if self.input is None:
            return b""
        inside = self.terminal.unread() if self.terminal is not None else self._peek()
        return inside + self.input.pending

    def _peek(self) -> bytes:
        """Copy what is in the inner pipe, through a read end that lives for a moment only."""
        reading = os.open(f"/proc/self/fd/{self._inner}", os.O_RDONLY | os.O_NONBLOCK)
        copy_reading, copy_writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            size = fcntl.fcntl(reading, fcntl.F_GETPIPE_SZ)
            fcntl.fcntl(copy_writing, fcntl.F_SETPIPE_SZ, size)
            left = tee(reading, copy_writing, size)
            parts = []
            while left > 0:
                parts.append(os.read(copy_reading, left))
                left -= len(parts[-1])
            return b"".join(parts)
        finally:
            for fd in (reading, copy_reading, copy_writing):
                os.close(fd)
