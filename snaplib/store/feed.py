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
from snaplib.store.blockcuts import PageSequence, blocks_in
from snaplib.store.blocks import BLOCK_PAGES, BlockFinder, Digests, block_digests
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
        finder: Finds blocks that need not go there; none by default.
    """

    def __init__(self, frames: FrameWriter, finder: BlockFinder | None = None) -> None:
        self._frames = frames
        # Frames that hold hardly more than a block have none.
        cuts = frames.frame_bytes >= 2 * BLOCK_PAGES * PAGE_BYTES
        self._finder = finder if cuts else None
        #: Whether blocks are looked for in what is declared: a task stands still meanwhile, so only where some may be
        #: found. What is copied ahead has the time.
        self._looks = False
        #: Blocks of the frame that is being filled: pages from its beginning, and what is in them.
        self._blocks: list[tuple[npt.NDArray[np.int64], Digests]] = []
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
        #: Where in the frame the row ends at the latest.
        self._row_end = 0

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
        self._owed = pages * PAGE_BYTES
        self._looks = self._finder is not None and self._finder.finds
        self._begin_row()

    def _begin_row(self) -> None:
        """Find out how much of what is owed goes into this frame; one that has no room for it is sent."""
        room = (self._frames.frame_bytes - self._fill) // PAGE_BYTES
        owed = self._owed // PAGE_BYTES
        if owed > room and self._looks:
            # Up to the end of a block, which the next frame would only have in part.
            aligned = (self._page + room) // BLOCK_PAGES * BLOCK_PAGES
            if aligned <= self._page:
                self._send()
                aligned = self._page + self._frames.frame_bytes // PAGE_BYTES
                aligned = aligned // BLOCK_PAGES * BLOCK_PAGES
            room = aligned - self._page
        self._row_fill = self._fill
        self._row_end = self._fill + min(room, owed) * PAGE_BYTES

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
        size = min(limit, self._row_end - self._fill)
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
        if self._fill > self._row_end:
            raise UsageError("more bytes than were reserved")
        if self._fill == self._row_end:
            count = (self._fill - self._row_fill) // PAGE_BYTES
            if not self._looks or count < BLOCK_PAGES:
                # Of these there may be very many.
                place = (self._number << PLACE_SHIFT) | (self._row_fill // PAGE_BYTES)
                self._rows.extend((self._page, count, place) if count else ())
            else:
                self._keep(np.array([self._page], np.uint64), np.array([count], np.uint64))
            self._page += count
            if self._fill == self._frames.frame_bytes:
                self._send()
            if self._owed:
                self._begin_row()

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
        sequence, done = PageSequence(pages), 0
        total = len(sequence)
        while done < total and not stopped() and self._have_buffer(stopped):
            assert self._buffer is not None
            room = self._buffer[self._fill :]
            after = min(total, done + len(room) // PAGE_BYTES)
            if self._finder is not None:
                after = sequence.whole_blocks(done, after)
                if after == done:
                    self._send(stopped)
                    continue
            some = sequence.part(done, after)
            got = read(room[: some.pages * PAGE_BYTES], some)
            self._row_fill = self._fill
            self._fill += got.pages * PAGE_BYTES
            self._keep(got.begins, got.ends - got.begins)
            done += some.pages
            if self._fill == self._frames.frame_bytes:
                self._send(stopped)
        return sequence.part(0, done)

    def _have_buffer(self, stopped: Callable[[], bool]) -> bool:
        if self._buffer is None:
            acquired = self._frames.try_acquire(stopped)
            if acquired is None:
                return False
            self._number, self._buffer = acquired
        return True

    def _keep(self, begins: npt.NDArray[np.uint64], counts: npt.NDArray[np.uint64]) -> None:
        """Note where pages are that came one behind the other, from the beginning of the row on; those that are in the
        store already are taken out of the frame again."""
        first = self._row_fill // PAGE_BYTES
        ends = np.cumsum(counts)
        places = np.uint64((self._number << PLACE_SHIFT) + first) + ends - counts
        if self._finder is None or int(counts.max(initial=0)) < BLOCK_PAGES:
            self._add(begins, counts, places)
            return
        at, pages = blocks_in(begins, counts)
        if not len(at):
            self._add(begins, counts, places)
            return
        assert self._buffer is not None
        offsets = (at + first) * PAGE_BYTES
        digests = block_digests(self._buffer, offsets.tolist())
        found, there = self._finder.find(digests)
        if not len(there):
            self._blocks.append((at + first, digests))
            self._add(begins, counts, places)
            return
        self._add(pages[found], np.full(len(there), BLOCK_PAGES, np.uint64), there)
        total = int(ends[-1])
        stays = np.ones(total, np.bool_)
        stays[(at[found][:, None] + np.arange(BLOCK_PAGES)).ravel()] = False
        numbers = np.repeat(begins + counts - ends, counts.astype(np.int64))
        numbers = (numbers + np.arange(total, dtype=np.uint64))[stays]
        memory = np.frombuffer(self._buffer, np.uint8).reshape(-1, PAGE_BYTES)
        memory[first : first + len(numbers)] = memory[first : first + total][stays]
        self._fill = self._row_fill + len(numbers) * PAGE_BYTES
        if len(numbers):
            breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
            begin = np.concatenate(([0], breaks))
            lengths = np.diff(np.concatenate((begin, [len(numbers)]))).astype(np.uint64)
            base = np.uint64((self._number << PLACE_SHIFT) + first)
            self._add(numbers[begin], lengths, base + begin.astype(np.uint64))
        moved = np.cumsum(stays) - 1
        self._blocks.append((moved[at[~found]] + first, digests[~found]))

    def _add(
        self,
        begins: npt.NDArray[np.uint64],
        counts: npt.NDArray[np.uint64],
        places: npt.NDArray[np.uint64],
    ) -> None:
        self._rows.frombytes(np.column_stack((begins, counts, places)).tobytes())

    def _send(self, stopped: Callable[[], bool] | None = None) -> None:
        if self._buffer is not None:
            buffer, self._buffer = self._buffer, None
            fill, self._fill = self._fill, 0
            self._row_fill = self._row_end = 0
            blocks, self._blocks = self._blocks, []
            if not fill:
                # All of it was found.
                self._frames.give_back(buffer)
                return
            if self._finder is not None:
                for at, digests in blocks:
                    places = np.uint64(self._number << PLACE_SHIFT) + at.astype(np.uint64)
                    self._finder.note(places, digests)
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
        self._send(stopped)
        rows = np.array(self._rows, np.uint64).reshape(-1, 3)
        self._rows = array("Q")
        return Places.of(rows[:, 0], rows[:, 1], rows[:, 2])

    def close(self) -> None:
        """Give the buffer back; may be called again."""
        if self._buffer is not None:
            buffer, self._buffer = self._buffer, None
            self._frames.give_back(buffer)
