"""Flows between real pipes and sockets: nothing lost, nothing twice, and no waiting."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from pathlib import Path
from typing import Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snaplib.session.nsinit.ends import End, open_end
from snaplib.session.nsinit.flow import Flow

#: No multiple of it is a page: bytes in a wrong place are wrong bytes.
_PATTERN = bytes(range(251))


class Ends:
    """A flow with the far end of its source and of its sink."""

    def __init__(self, source: str = "pipe", sink: str = "pipe", **options) -> None:
        self.write_fd, from_fd = self._pair(source)
        to_fd, self.read_fd = self._pair(sink)
        self.flow = Flow(self._end(from_fd, source), self._end(to_fd, sink), **options)
        self.sent = b""
        self.got = b""

    @staticmethod
    def _pair(kind: str) -> tuple[int, int]:
        """Return (for writing, for reading)."""
        if kind == "socket":
            return tuple(end.detach() for end in socket.socketpair())
        return tuple(reversed(os.pipe()))

    @staticmethod
    def _end(fd: int, kind: str) -> End:
        if kind == "pipe":
            os.set_blocking(fd, False)
        return End(fd, kind)

    def send(self, data: bytes) -> None:
        os.set_blocking(self.write_fd, False)
        with contextlib.suppress(BlockingIOError):
            self.sent += data[: os.write(self.write_fd, data)]

    def take(self, limit_bytes: int = 1 << 20) -> None:
        os.set_blocking(self.read_fd, False)
        with contextlib.suppress(BlockingIOError):
            self.got += os.read(self.read_fd, limit_bytes)

    def close_source(self) -> None:
        self.write_fd = self._close(self.write_fd)

    def close_sink(self) -> None:
        self.read_fd = self._close(self.read_fd)

    @staticmethod
    def _close(fd: int) -> int:
        if fd >= 0:
            os.close(fd)
        return -1

    def close(self) -> None:
        self.flow.close()
        self.close_source()
        self.close_sink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


KINDS = pytest.mark.parametrize(
    "kinds", [(a, b) for a in ("pipe", "socket") for b in ("pipe", "socket")]
)


@KINDS
@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.integers(1, 200_000).map(lambda n: ("send", n)),
            st.integers(1, 200_000).map(lambda n: ("take", n)),
            st.just(("pump", 0)),
            st.just(("rest", 0)),
        ),
        max_size=30,
    ),
    pending=st.binary(max_size=100),
)
def test_every_byte_arrives_once_and_in_order(kinds, steps, pending):
    with Ends(*kinds, pending=pending) as ends:
        stamp = 0
        for what, size in steps:
            if what == "send":
                ends.send((_PATTERN * (size // 251 + 2))[stamp % 251 :][:size])
                stamp += 83
            elif what == "take":
                ends.take(size)
            elif what == "pump":
                ends.flow.pump()
            else:
                ends.flow.take_rest()
        ends.close_source()
        while not ends.flow.done:
            ends.flow.pump()
            ends.take()
        ends.take()
        assert ends.got == pending + ends.sent
        assert ends.flow.delivered_bytes == len(ends.got)


@KINDS
def test_what_cannot_be_passed_on_is_taken_and_passed_on_later(kinds):
    with Ends(*kinds) as ends:
        while not ends.flow.stuck:
            ends.send(b"x" * 65536)
            ends.flow.pump()
        left = ends.flow.take_rest()
        assert ends.flow.take_rest() == left
        assert len(left) + ends.flow.delivered_bytes == len(ends.sent)
        while ends.flow.pending:
            ends.take()
            ends.flow.pump()
        ends.take()
        assert len(ends.got) == len(ends.sent)


def poll_once(flow: Flow) -> list[tuple[int, int]]:
    poll = select.poll()
    for fd, events in flow.interests():
        poll.register(fd, events)
    return poll.poll(0)


@KINDS
def test_a_flow_that_cannot_move_does_not_keep_us_awake(kinds):
    with Ends(*kinds) as ends:
        assert poll_once(ends.flow) == []
        while not ends.flow.stuck:
            ends.send(b"x" * 65536)
            ends.flow.pump()
        ends.send(b"more")
        assert poll_once(ends.flow) == []


def test_a_full_sink_is_not_taken_for_an_empty_source():
    with Ends() as ends:
        while not ends.flow.stuck:
            ends.send(b"x" * 65536)
            ends.flow.pump()
        # The reader makes room just after the splice was refused.
        ends.take()
        assert ends.flow.stuck
        assert poll_once(ends.flow) != []


def test_the_end_of_the_source_is_passed_on():
    with Ends() as ends:
        ends.send(b"last")
        ends.close_source()
        while ends.flow.pump():
            pass
        assert ends.flow.done
        assert (os.read(ends.read_fd, 10), os.read(ends.read_fd, 10)) == (b"last", b"")


@KINDS
def test_what_was_passed_on_before_is_skipped(kinds):
    with Ends(*kinds, pending=b"first ", skip_bytes=300_000) as ends:
        while len(ends.sent) < 310_000:
            ends.send(_PATTERN)
            ends.flow.pump()
        ends.close_source()
        while not ends.flow.done:
            ends.flow.pump()
            ends.take()
        assert ends.got == b"first " + ends.sent[300_000:]


def test_a_reader_that_has_gone_closes_the_source():
    with Ends() as ends:
        ends.close_sink()
        ((fd, events),) = poll_once(ends.flow)
        ends.flow.wake(fd, events)
        assert ends.flow.done
        with pytest.raises(BrokenPipeError):
            os.write(ends.write_fd, b"x")


def test_a_screen_that_has_gone_does_not_stop_the_task():
    with Ends(survives_sink=True) as ends:
        ends.close_sink()
        ends.send(b"x" * 1000)
        ends.flow.pump()
        ends.send(b"x" * 1000)
        ends.flow.pump()
        assert not ends.flow.done
        assert not ends.flow.stuck


def test_a_full_disk_ends_the_flow_and_is_told():
    reading, writing = os.pipe()
    with contextlib.closing(
        Flow(End(reading, "pipe"), End(os.open("/dev/full", os.O_WRONLY), "device"))
    ) as flow:
        os.write(writing, b"x")
        flow.pump()
        assert flow.done
        assert "No space left" in flow.failure
    os.close(writing)


def test_the_callers_description_stays_blocking():
    reading, writing = os.pipe()
    end = open_end(writing, writing=True)
    assert os.get_blocking(writing)
    assert not os.get_blocking(end.fd)
    end.close()
    for fd in (reading, writing):
        os.close(fd)


def test_a_file_that_appends_is_written_at_its_end(tmp_path: Path):
    path = tmp_path / "out"
    path.write_bytes(b"before ")
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with contextlib.closing(Flow(End(reading, "pipe"), open_end(fd, writing=True))) as flow:
        os.write(writing, b"after")
        flow.pump()
    assert path.read_bytes() == b"before after"
    for open_fd in (fd, writing):
        os.close(open_fd)
