"""The page server that CRIU's lazy-pages daemon asks: pages by process and address, out of a snapshot.

The protocol is that of `snaplib.checkpoint.pageserver`.  A request is a header with the command GET; the answer is the
same header with the command ADD_F, and exactly as many pages as were asked for.  The destination is the process's pid
as the images name it (CRIU: criu/page-xfer.c).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

import numpy as np

from snaplib.criu.pagemap import PAGE_BYTES, PE_PRESENT
from snaplib.store import Index, Space
from snaplib.store.framecache import FrameCache

__all__ = ["serve"]

_HEADER = struct.Struct("<IIQQQ")
_ADD_F, _GET = 6, 7
_CLOSE, _FORCE_CLOSE = 0x1023, 0x1024
_TASK = 1
#: Frames fetched beyond what was asked for: the daemon goes through memory in the order of addresses.
_AHEAD = 6


class _Task:
    """Where the pages of one process lie.

    Args:
        index: The snapshot's index.
        space: The process.
    """

    def __init__(self, index: Index, space: Space) -> None:
        self._index = index
        self._runs = index.runs_of(space)
        # Copies: the columns of a packed array are slow to search.
        self._begins = self._runs["vaddr"].copy()

    def pieces(self, vaddr: int, pages: int) -> list[tuple[int, int, int]]:
        """Return frame, first page in it and number of pages of consecutive pages.

        Raises:
            ValueError: Some of them are not there.
        """
        end = vaddr + pages * PAGE_BYTES
        low = max(0, int(np.searchsorted(self._begins, np.uint64(vaddr), "right")) - 1)
        high = int(np.searchsorted(self._begins, np.uint64(end), "left"))
        part = self._runs[low:high].copy()
        begins = np.maximum(part["vaddr"], np.uint64(vaddr))
        ends = np.minimum(part["vaddr"] + part["pages"] * np.uint64(PAGE_BYTES), np.uint64(end))
        part["position"] += (begins - part["vaddr"]) // np.uint64(PAGE_BYTES)
        part["pages"] = np.where(ends > begins, (ends - begins) // np.uint64(PAGE_BYTES), 0)
        part = part[part["pages"] > 0]
        found = self._index.pieces(part)
        if int(found["pages"].sum()) != pages:
            raise ValueError(f"CRIU asks for {pages} pages at {vaddr:#x}, which are not there")
        rows: list[tuple[int, int, int]] = found.tolist()
        return rows


def serve(
    connection: socket.socket,
    index: Index,
    cache: FrameCache,
    served: Callable[[int], None],
) -> None:
    """Answer requests until the daemon has what it needs.

    Args:
        connection: Our end of the socket.
        index: The snapshot's index.
        cache: Where its frames come from.
        served: Told of each answer's bytes.

    Raises:
        SnapshotDamaged: The store has not what was written.
        ValueError: The daemon asks for something else.
    """
    tasks: dict[int, _Task] = {}
    last = len(index.frames)
    while header := _receive(connection, _HEADER.size):
        command, _padding, pages, vaddr, destination = _HEADER.unpack(header)
        command &= 0xFFFF
        if command in (_CLOSE, _FORCE_CLOSE):
            connection.sendall(struct.pack("<i", 0))
            continue
        if command != _GET:
            raise ValueError(f"CRIU's daemon sent command {command:#x}, which is not known")
        task = tasks.get(destination)
        if task is None:
            task = tasks[destination] = _Task(index, Space(_TASK, destination))
        pieces = task.pieces(vaddr, pages)
        after = pieces[-1][0] + 1
        cache.want(frame for frame, _first, _pages in pieces)
        cache.want(range(after, min(after + _AHEAD, last)))
        head = _HEADER.pack(_ADD_F | PE_PRESENT << 16, 0, pages, vaddr, destination)
        connection.sendall(head)
        for frame, first, count in pieces:
            view = memoryview(cache.get(frame))
            connection.sendall(view[first * PAGE_BYTES : (first + count) * PAGE_BYTES])
        served(pages * PAGE_BYTES)


def _receive(connection: socket.socket, size: int) -> bytes:
    """Return so many bytes; none where the connection has ended."""
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            return b""
        data += more
    return data
