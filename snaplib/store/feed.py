"""A feed: the way of one thread's pages into frames.

The caller receives, or reads, straight into a frame buffer.  Each thread has a feed of its own, so
that several can copy at the same time.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import numpy as np

from snaplib.errors import UsageError
from snaplib.store.index import PAGE_BYTES
from snaplib.store.places import PLACE_SHIFT, Places

if TYPE_CHECKING:
    from snaplib.store.framewriter import FrameWriter

__all__ = ["Feed"]


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

    def _end_row(self) -> None:
        first, after = self._row_fill // PAGE_BYTES, self._fill // PAGE_BYTES
        if after > first:
            self._rows.extend((self._page, after - first, (self._number << PLACE_SHIFT) | first))
        self._page += after - first
        self._row_fill = self._fill

    def _send(self) -> None:
        if self._buffer is not None:
            buffer, self._buffer = self._buffer, None
            fill, self._fill = self._fill, 0
            self._row_fill = 0
            self._frames.submit(self._number, buffer, fill)

    def skip(self) -> None:
        """Do without the rest of the last run: only its whole pages that have come count."""
        self._end_row()
        # A page that came in part is not in any row, and its room is used again.
        self._fill = self._row_fill = self._fill // PAGE_BYTES * PAGE_BYTES
        self._owed = 0

    def flush(self) -> Places:
        """Have what is left stored; return where everything is that came since the last flush.

        Raises:
            StoreError: It could not be stored.
        """
        if self._owed:
            raise UsageError(f"{self._owed} bytes of the run before are missing")
        if self._fill:
            self._send()
        rows = np.array(self._rows, np.uint64).reshape(-1, 3)
        self._rows = array("Q")
        return Places.of(rows[:, 0], rows[:, 1], rows[:, 2])

    def close(self) -> None:
        """Give the buffer back; may be called again."""
        if self._buffer is not None:
            buffer, self._buffer = self._buffer, None
            self._frames.give_back(buffer)
