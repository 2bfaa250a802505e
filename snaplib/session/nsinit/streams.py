"""All streams of a session: how they are laid out, when they move, and what is left in them.

Laid out by what the caller's descriptors are: a memory device or an input file the task gets
itself; a terminal becomes a pty; everything else a pipe that the init relays, because CRIU can dump
a pipe of which the task has one end, but neither the other end's program nor the rest of a
pipeline.
"""

from __future__ import annotations

import contextlib
import os
import termios
from collections.abc import Mapping, Sequence
from typing import Any

from snaplib.session.nsinit.ends import kind_of, open_end
from snaplib.session.nsinit.flow import Flow
from snaplib.session.nsinit.outer import identity, open_direct, same_output
from snaplib.session.nsinit.stream import Stream
from snaplib.session.nsinit.terminal import raw_attributes, same_attributes

__all__ = ["Streams"]

_STANDARD = (0, 1, 2)


class Streams:
    """The standard streams of one task."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        #: While a dump is made nothing moves.
        self.paused = False
        #: Keys are taken from the outer terminal while the caller has it in raw mode.
        self.foreground = False
        #: Nothing is shown before that either, or line ends would be converted twice.
        self.awaits_raw = False
        self._outer_terminal = -1
        self._outer_attributes: list[Any] | None = None

    @classmethod
    def for_launch(cls, outer: Sequence[int], direct: Sequence[int]) -> Streams:
        """Lay out streams for a new task.

        Args:
            outer: The caller's three descriptors.
            direct: Which of the task's descriptors are files that were opened for it.
        """
        self = cls()
        terminal_fds: list[int] = []
        for fd in _STANDARD:
            kind = kind_of(outer[fd])
            if kind == "terminal" and (
                not terminal_fds
                or os.fstat(outer[fd]).st_rdev == os.fstat(outer[terminal_fds[0]]).st_rdev
            ):
                terminal_fds.append(fd)
            elif not self._join(fd, outer):
                self._add(fd, outer[fd], wants_direct=kind != "file" or fd == 0 or fd in direct)
        if terminal_fds:
            outer_fd = outer[terminal_fds[0]]
            stream = Stream.pty(
                terminal_fds, identity(outer_fd), input_fd=outer_fd, output_fd=outer_fd
            )
            self.streams.append(stream)
            self._watch_terminal(stream, outer_fd, resemble=True)
        return self

    @classmethod
    def for_restore(
        cls,
        records: Sequence[Mapping[str, Any]],
        outer: Sequence[int],
        *,
        inputs: Mapping[int, bytes],
        outputs: Mapping[int, bytes],
    ) -> Streams:
        """Lay out streams as a snapshot had them.

        Args:
            records: What `describe` told at the dump, with the counts to go on from.
            outer: The caller's three descriptors.
            inputs: By stream's first descriptor, what the task had not read yet.
            outputs: The same, what had not been passed on yet.
        """
        self = cls()
        self.paused = True
        for record in records:
            fds = list(record["fds"])
            known = dict(record["outer"])
            if record["kind"] == "pipe":
                pending = (inputs if fds == [0] else outputs).get(fds[0], b"")
                stream = Stream.pipe(
                    fds,
                    known,
                    outer[fds[0]],
                    pending=pending,
                    skip_bytes=record.get("skip_bytes", 0),
                )
                if record["ended"] and stream.input is not None:
                    stream.input.change_source(None)
                self.streams.append(stream)
            elif record["kind"] == "terminal":
                shown = next((fd for fd in (1, 2, 0) if fd in fds), 0)
                if shown == 0 and kind_of(outer[0]) != "terminal":
                    shown = 1
                stream = Stream.pty(
                    fds,
                    known,
                    input_fd=outer[0] if 0 in fds else outer[shown],
                    output_fd=outer[shown],
                    pending=outputs.get(fds[0], b""),
                )
                stream.typed = inputs.get(fds[0], b"")
                self.streams.append(stream)
                self._watch_terminal(stream, outer[shown], resemble=True)
            else:
                self.streams.append(Stream.direct(fds, known, -1))
        return self

    def task_ends(self) -> list[int]:
        """Return what the task's descriptors 0, 1 and 2 are to be copies of."""
        ends = {fd: stream.task_end for stream in self.streams for fd in stream.fds}
        return [ends[fd] for fd in _STANDARD]

    def controlling(self) -> int:
        """Return the terminal that is to control the task's session; -1: none."""
        return next((s.task_end for s in self.streams if s.kind == "terminal"), -1)

    def close_task_ends(self) -> None:
        """Give up our copies of the task's ends."""
        for stream in self.streams:
            stream.close_task_end()

    def describe(self) -> list[dict[str, Any]]:
        """Return the fields of the streams' records as they are now."""
        return [stream.describe() for stream in self.streams]

    def active(self) -> list[Flow]:
        """Return the flows that may move now."""
        if self.paused:
            return []
        return [
            flow
            for stream in self.streams
            for flow in stream.flows
            if self.foreground or not self._waits_for_terminal(stream, flow)
        ]

    def outputs(self) -> list[Flow]:
        """Return the flows from the task."""
        return [stream.output for stream in self.streams if stream.output is not None]

    def resume(self) -> None:
        """Let everything move, what had been typed first."""
        self.paused = False
        for stream in self.streams:
            if stream.terminal is not None and stream.typed:
                stream.terminal.feed(stream.typed)
                stream.typed = b""

    def leftovers(self) -> tuple[dict[int, bytes], dict[int, bytes]]:
        """Return what the task has not read, and what it wrote and nobody took; all of it stays
        with us.

        The task must be stopped, and the streams paused.
        """
        inputs = {stream.fds[0]: stream.unread() for stream in self.streams}
        outputs = {
            stream.fds[0]: stream.output.take_rest()
            for stream in self.streams
            if stream.output is not None
        }
        return inputs, outputs

    def change_outer(self, outer: Sequence[int]) -> None:
        """Connect the streams to another caller's descriptors.

        Args:
            outer: Its descriptors 0, 1 and 2.
        """
        for stream in self.streams:
            if stream.kind == "direct":
                continue
            first = stream.fds[0]
            stream.go_on_in(outer[first])
            if stream.input is not None and stream.input.sink is not None:
                stream.input.change_source(open_end(outer[first], writing=False))
            if stream.output is not None and stream.output.source is not None:
                stream.output.change_sink(open_end(outer[first], writing=True))
            if stream.terminal is not None:
                self._watch_terminal(stream, outer[first], resemble=False)

    def resize(self) -> None:
        """Pass the outer terminal's size on."""
        for stream in self.streams:
            if stream.terminal is not None and self._outer_terminal >= 0:
                stream.terminal.resize(self._outer_terminal)

    def leave_terminal(self) -> None:
        """Stop taking keys, and undo the caller's raw mode if it died without doing so."""
        self.foreground = self.awaits_raw = False
        if self._outer_terminal < 0 or self._outer_attributes is None:
            return
        with contextlib.suppress(termios.error):
            now = termios.tcgetattr(self._outer_terminal)
            # Only if it is still as the caller made it: the user's shell may have set its own modes
            # by now.
            if same_attributes(now, raw_attributes(self._outer_attributes)):
                termios.tcsetattr(self._outer_terminal, termios.TCSANOW, self._outer_attributes)

    def close(self) -> None:
        """Close all outer ends, so that whoever reads them sees the end."""
        for stream in self.streams:
            for flow in stream.flows:
                flow.close()

    def _waits_for_terminal(self, stream: Stream, flow: Flow) -> bool:
        """Whether a flow stands still because the caller's terminal is not raw."""
        if stream.kind != "terminal":
            return False
        if flow is stream.input:
            return flow.source is not None and flow.source.kind == "terminal"
        return self.awaits_raw and flow.sink is not None and flow.sink.kind == "terminal"

    def _join(self, fd: int, outer: Sequence[int]) -> bool:
        """Let stderr share stdout's stream if both lead to the same place: only so their order is kept."""
        if fd != 2 or not same_output(outer[1], outer[2]):
            return False
        stream = next((s for s in self.streams if s.fds == [1]), None)
        if stream is None:
            return False
        stream.fds.append(2)
        return True

    def _add(self, fd: int, outer_fd: int, *, wants_direct: bool) -> None:
        known = identity(outer_fd)
        if wants_direct and known["kind"] in ("closed", "device", "file"):
            direct = open_direct(outer_fd)
            if direct is not None:
                self.streams.append(Stream.direct([fd], known, direct))
                return
        self.streams.append(Stream.pipe([fd], known, outer_fd))

    def _watch_terminal(self, stream: Stream, outer_fd: int, *, resemble: bool) -> None:
        if self._outer_terminal >= 0:
            os.close(self._outer_terminal)
            self._outer_terminal = -1
            self._outer_attributes = None
        if kind_of(outer_fd) != "terminal" or stream.terminal is None:
            return
        self._outer_terminal = os.dup(outer_fd)
        with contextlib.suppress(termios.error):
            self._outer_attributes = termios.tcgetattr(outer_fd)
        if resemble:
            stream.terminal.resemble(outer_fd)
        else:
            stream.terminal.resize(outer_fd)
