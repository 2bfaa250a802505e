"""The records of a session: its streams, what was left in them at a dump, and how it ended."""

from __future__ import annotations

import base64
import signal
from collections.abc import Mapping
from typing import Any

import attrs

__all__ = ["Backlog", "CaptureSource", "ExitStatus", "OuterRecord", "StreamRecord", "StreamsRecord"]

#: What shells add to a signal's number.
_SHELL_SIGNAL = 128


@attrs.frozen
class OuterRecord:
    """The outer end of a stream: what the caller's descriptor was.

    Attributes:
        kind: file, pipe, socket, terminal, device or closed.
        path: Its path, where it has one.
        device: st_dev; of a terminal or device st_rdev.
        inode: st_ino.
        start_bytes: Where in the file the task's output begins.
        delivered_bytes: How much has been passed on, output to the outer end or input from it.
        appends: Whether it was opened with O_APPEND (the shell's ``>>``).
    """

    kind: str
    path: str | None = None
    device: int = 0
    inode: int = 0
    start_bytes: int = 0
    delivered_bytes: int = 0
    appends: bool = False


@attrs.frozen
class StreamRecord:
    """One stream of a task.

    Attributes:
        kind: direct (the task has the file or device itself), pipe or terminal.
        fds: The task's descriptors it is for, of 0, 1 and 2.
        direction: in, out or both, as seen by the task.
        key: CRIU's name of the task's end: ``pipe:[INODE]`` or ``tty[RDEV:DEV]`` in hex; None for
            direct.
        ended: An input that has no more to come, or an output that the task has closed.
        outer: The other end.
    """

    kind: str
    fds: tuple[int, ...]
    direction: str
    key: str | None
    ended: bool
    outer: OuterRecord

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> StreamRecord:
        """Read what `to_json` wrote."""
        return cls(
            kind=content["kind"],
            fds=tuple(content["fds"]),
            direction=content["direction"],
            key=content["key"],
            ended=content["ended"],
            outer=OuterRecord(**content["outer"]),
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return attrs.asdict(self)

    @property
    def captures(self) -> bool:
        """Whether the outer file's content goes with a snapshot.

        A shell that runs the same command line again truncates the file with ``>``, and what was
        written before the dump would be lost; with ``>>`` it stays.
        """
        return (
            self.kind == "pipe"
            and self.direction == "out"
            and self.outer.kind == "file"
            and self.outer.path is not None
            and not self.outer.appends
            and self.outer.delivered_bytes > 0
        )


@attrs.frozen
class CaptureSource:
    """A part of a file that is to go with a snapshot.

    Attributes:
        stream: The stream's first descriptor.
        path: The file.
        offset_bytes: Where the task's output begins.
        length_bytes: How much there is.
    """

    stream: int
    path: str
    offset_bytes: int
    length_bytes: int


@attrs.frozen
class StreamsRecord:
    """All streams of a task, as a snapshot's manifest keeps them."""

    streams: tuple[StreamRecord, ...]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> StreamsRecord:
        """Read what `to_json` wrote."""
        return cls(tuple(StreamRecord.from_json(stream) for stream in content["streams"]))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"streams": [stream.to_json() for stream in self.streams]}

    def external(self) -> list[str]:
        """Return what CRIU is to be told about at a dump (``external``): terminals, whose master is ours."""
        return [stream.key for stream in self.streams if stream.kind == "terminal" and stream.key]

    def capture_sources(self) -> list[CaptureSource]:
        """Return what of the output files is to go with a snapshot."""
        return [
            CaptureSource(
                stream.fds[0],
                stream.outer.path or "",
                stream.outer.start_bytes,
                stream.outer.delivered_bytes,
            )
            for stream in self.streams
            if stream.captures
        ]


@attrs.frozen
class Backlog:
    """What was on its way when the task was stopped.

    Attributes:
        inputs: By stream's first descriptor, what came for the task and was not read by it.
        outputs: The same, what the task wrote and nobody outside took.
    """

    inputs: Mapping[int, bytes] = attrs.field(factory=dict)
    outputs: Mapping[int, bytes] = attrs.field(factory=dict)

    @property
    def size_bytes(self) -> int:
        """How much there is."""
        return sum(map(len, self.inputs.values())) + sum(map(len, self.outputs.values()))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Backlog:
        """Read what `to_json` wrote."""
        return cls(_decoded(content["inputs"]), _decoded(content["outputs"]))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it, bytes in base64."""
        return {"inputs": _encoded(self.inputs), "outputs": _encoded(self.outputs)}


@attrs.frozen
class ExitStatus:
    """How a session ended.

    Attributes:
        exit_code: The root's exit status.
        signal: The signal that ended the root.
        saved: The snapshot that took the task's place.
    """

    exit_code: int | None = None
    signal: int | None = None
    saved: str | None = None

    @property
    def was_killed(self) -> bool:
        """Whether SIGKILL or SIGHUP ended the root, or a child of it as shells tell that: somebody else's doing.

        The kernel does it for want of memory or when a terminal goes away, a scheduler, or a person; nobody writes down
        who.
        """
        return self.was_ended_by(signal.SIGKILL) or self.was_ended_by(signal.SIGHUP)

    def was_ended_by(self, number: int) -> bool:
        """Return whether a signal ended the root, or a child of it as shells tell that."""
        return self.saved is None and self.shell_code == _SHELL_SIGNAL + number

    @property
    def shell_code(self) -> int:
        """The status as shells give it: 128 + N after signal N."""
        return _SHELL_SIGNAL + self.signal if self.signal is not None else self.exit_code or 0


def _encoded(leftovers: Mapping[int, bytes]) -> dict[str, str]:
    return {str(fd): base64.b64encode(data).decode() for fd, data in leftovers.items()}


def _decoded(leftovers: Mapping[str, str]) -> dict[int, bytes]:
    return {int(fd): base64.b64decode(data) for fd, data in leftovers.items()}
