"""A feed: the way of one thread's pages into frames.

The caller receives, or reads, straight into a frame buffer.  Each thread has a feed of its own, so
that several can copy at the same time.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from snaplib.errors import UsageError
from snaplib.store.index import PAGE_BYTES
from snaplib.store.places import PLACE_SHIFT, Places
from snaplib.store.runs import RunSet

if TYPE_CHECKING:
    from snaplib.store.framewriter import FrameWriter

__all__ = ["Feed", "Read"]

#: Reads pages, given by their numbers, into a room that is as large as all of them, one behind the
#: other; returns which it could read, in the same order.
Read = Callable[[memoryview, RunSet], RunSet]


class Feed:
    """Takes pages; for one thread.

    Args:
        frames: Where they go.
    """

    def __init__(self, frames: FrameWriter) -> None:
        self._frames = frames
        #: Rows of three 64-bit numbers: first page, pages, place.
        self._rows = array("Q")
        #: The frame that is being filled, its buffer, and how many bytes are in it.
        self._number = 0
        self._buffer: memoryview | None = None
        self._fill = 0
        #: Bytes that the last run declared and that have not come; the page that comes next, and
        #: where in the frame its row began.
        self._owed = 0
        self._page = 0
        self._row_fill = 0

    @property
    def owed_bytes(self) -> int:
        """How many bytes of the last run have not come."""
        return self._owed

    def run(self, page: int, pages: int) -> None:
        """Declare which pages come next; their bytes come through `reserve` and `filled`.

        Args:
            page: The number of the first.
            pages: How many.
        """
        if self._owed:
            raise UsageError(f"{self._owed} bytes of the run before are missing")
        self._page = page
        self._row_fill = self._fill
        self._owed = pages * PAGE_BYTES

    def reserve(self, limit: int) -> memoryview:
        """Give room for bytes of the last run.

        Args:
            limit: How many bytes at most.

        Returns:
            A writable view of at least one byte, good until `filled`.

        Raises:
            StoreError: What was given before could not be stored.
        """
        self._frames.check()
        size = min(limit, self._owed, self._frames.frame_bytes - self._fill)
        if size <= 0:
            raise UsageError("no bytes are due")
        if self._buffer is None:
            self._number, self._buffer = self._frames.acquire()
        return self._buffer[self._fill : self._fill + size]

    def filled(self, count: int) -> None:
        """Say that the first ``count`` bytes of what was reserved are there.

        Raises:
            StoreError: They could not be stored.
        """
        self._fill += count
        self._owed -= count
        if self._owed < 0 or self._fill > self._frames.frame_bytes:
            raise UsageError("more bytes than were reserved")
        if not self._owed or self._fill == self._frames.frame_bytes:
            self._end_row()
            if self._fill == self._frames.frame_bytes:
                self._send()

    def gather(self, pages: RunSet, read: Read, stopped: Callable[[], bool]) -> RunSet:
        """Take pages that somebody reads for us, a frame's worth at a time.

        Args:
            pages: Which, by their numbers.
            read: Reads some of them into a room, one behind the other; returns which it could read.
            stopped: Asked before each frame, and while there is no room for one or nobody who takes it, whether to
                stop.

        Returns:
            The pages that were tried: all, unless it was told to stop.

        Raises:
            StoreError: What was given before could not be stored.
        """
        if self._owed:
            raise UsageError(f"{self._owed} bytes of the run before are missing")
        ends = np.cumsum(pages.ends - pages.begins)
        total = int(ends[-1]) if len(ends) else 0
        done = 0
        while done < total and not stopped() and self._have_buffer(stopped):
            assert self._buffer is not None
            room = self._buffer[self._fill :]
            some = _slice(pages, ends, done, min(total, done + len(room) // PAGE_BYTES))
            got = read(room[: some.pages * PAGE_BYTES], some)
            counts = got.ends - got.begins
            first = self._fill // PAGE_BYTES
            places = np.uint64((self._number << PLACE_SHIFT) + first) + np.cumsum(counts) - counts
            self._rows.frombytes(np.column_stack((got.begins, counts, places)).tobytes())
            self._fill += got.pages * PAGE_BYTES
            self._row_fill = self._fill
            done += some.pages
            if self._fill == self._frames.frame_bytes:
                self._send(stopped)
        return _slice(pages, ends, 0, done)

    def _have_buffer(self, stopped: Callable[[], bool]) -> bool:
        if self._buffer is None:
            acquired = self._frames.try_acquire(stopped)
            if acquired is None:
                return False
            self._number, self._buffer = acquired
        return True

    def _end_row(self) -> None:
        first, after = self._row_fill // PAGE_BYTES, self._fill // PAGE_BYTES
        if after > first:
            self._rows.extend((self._page, after - first, (self._number << PLACE_SHIFT) | first))
        self._page += after - first
        self._row_fill = self._fill

    def _send(self, stopped: Callable[[], bool] | None = None) -> None:
        if self._buffer is not None:
            buffer, self._buffer = self._buffer, None
            fill, self._fill = self._fill, 0
            self._row_fill = 0
            self._frames.submit(self._number, buffer, fill, stopped)

    def flush(self, stopped: Callable[[], bool] | None = None) -> Places:
        """Have what is left stored; return where everything is that came since the last flush.

        Args:
            stopped: Asked while there is nobody who takes it whether to stop waiting for that; it is stored all the
                same.

        Raises:
            StoreError: It could not be stored.
        """
        if self._owed:
            raise UsageError(f"{self._owed} bytes of the run before are missing")
        if self._fill:
            self._send(stopped)
        rows = np.array(self._rows, np.uint64).reshape(-1, 3)
        self._rows = array("Q")
        return Places.of(rows[:, 0], rows[:, 1], rows[:, 2])

    def close(self) -> None:
        """Give the buffer back; may be called again."""
        if self._buffer is not None:
            buffer, self._buffer = self._buffer, None
            self._frames.give_back(buffer)


def _slice(pages: RunSet, ends: npt.NDArray[np.uint64], first: int, after: int) -> RunSet:
    """Return some pages of a set, given by their places in it; ends are the places of run ends."""
    if first >= after:
        return RunSet(pages.begins[:0], pages.ends[:0])
    low = int(np.searchsorted(ends, first, "right"))
    high = int(np.searchsorted(ends, after, "left")) + 1
    begins, stops = pages.begins[low:high].copy(), pages.ends[low:high].copy()
    lengths = pages.ends[low] - pages.begins[low]
    begins[0] += np.uint64(first) - (ends[low] - lengths)
    stops[-1] -= ends[high - 1] - np.uint64(after)
    return RunSet(begins, stops)
