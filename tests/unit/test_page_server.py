"""The page server, spoken to as CRIU speaks."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaplib.checkpoint.pageserver import PageServer
from snaplib.criu.pagemap import PAGE_BYTES, PE_LAZY, PE_PARENT, PE_PRESENT
from snaplib.store import Space

OPEN2, PARENT, ADD_F, CLOSE = 4, 5, 6, 0x1023


class Sink:
    """Keeps what comes, in room of an awkward size."""

    def __init__(self, room_bytes: int = 5000, fail: Exception | None = None) -> None:
        self.events: list[tuple] = []
        self.data = bytearray()
        self._room = bytearray(room_bytes)
        self._fail = fail

    def run(self, space: Space, vaddr: int, pages: int, flags: int) -> None:
        """Take a run."""
        if self._fail:
            raise self._fail
        self.events.append(("run", space, vaddr, pages, flags))

    def hole(self, space: Space, vaddr: int, pages: int, flags: int) -> None:
        """Take a hole."""
        self.events.append(("hole", space, vaddr, pages, flags))

    def reserve(self, limit: int) -> memoryview:
        """Give room."""
        return memoryview(self._room)[: min(limit, len(self._room))]

    def filled(self, count: int) -> None:
        """Keep what was put there."""
        self.data += self._room[:count]


def send(
    sock: socket.socket,
    command: int,
    pages: int = 0,
    vaddr: int = 0,
) -> None:
    """Send a header as CRIU 4.2 does."""
    sock.sendall(struct.pack("<IIQQQ", command, 0, pages, vaddr, 42 << 8 | 1))


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**35),
            st.integers(1, 9),
            st.sampled_from([PE_PRESENT, PE_PRESENT | PE_LAZY, PE_PARENT]),
        ),
        max_size=12,
    )
)
def test_runs_and_holes_arrive_in_order(rows: list[tuple[int, int, int]]) -> None:
    """Every run with its bytes, every hole without, and CRIU's goodbye answered."""
    sink = Sink()
    server = PageServer(sink)
    server.start()
    criu = server.criu_end
    expected, content = [], bytearray()
    send(criu, OPEN2)
    assert criu.recv(1) == b"\0"
    send(criu, PARENT)
    assert struct.unpack("<i", criu.recv(4)) == (0,)
    for page, pages, flags in rows:
        vaddr = page * PAGE_BYTES
        send(criu, ADD_F | flags << 16, pages, vaddr)
        if flags & PE_PRESENT:
            data = bytes([len(content) // PAGE_BYTES % 251]) * (pages * PAGE_BYTES)
            criu.sendall(data)
            content += data
        expected.append(
            ("run" if flags & PE_PRESENT else "hole", Space(kind=1, id=42), vaddr, pages, flags)
        )
    send(criu, CLOSE)
    assert struct.unpack("<i", criu.recv(4)) == (0,)
    server.finish(10)
    assert sink.events == expected
    assert sink.data == content
    assert server.page_bytes == len(content)
    server.close()


def test_criu_that_goes_away_is_no_success() -> None:
    """Pages without a goodbye are half a dump."""
    server = PageServer(Sink())
    server.start()
    send(server.criu_end, ADD_F | PE_PRESENT << 16, pages=3)
    server.criu_end.sendall(b"x" * 100)
    server.criu_end.close()
    with pytest.raises(EOFError):
        server.finish(10)
    server.close()


def test_a_sink_that_fails_breaks_the_connection() -> None:
    """CRIU has no timeout: it must see the end at once, and the caller the cause."""
    server = PageServer(Sink(fail=OSError(28, "No space left on device")))
    server.start()
    send(server.criu_end, ADD_F | PE_PRESENT << 16, pages=3)
    assert server.criu_end.recv(1) == b""
    with pytest.raises(OSError, match="No space left"):
        server.finish(10)
    server.close()


def test_an_unknown_command_breaks_the_connection() -> None:
    """A protocol that has moved on must not be guessed at."""
    server = PageServer(Sink())
    server.start()
    send(server.criu_end, 99)
    assert server.criu_end.recv(1) == b""
    with pytest.raises(ValueError, match="0x63"):
        server.finish(10)
    server.close()


def test_hang_up_ends_a_server_that_waits() -> None:
    """The watchdog's way out."""
    server = PageServer(Sink())
    server.start()
    server.hang_up()
    assert server.criu_end.recv(1) == b""
    with pytest.raises(EOFError):
        server.finish(10)
    server.close()
