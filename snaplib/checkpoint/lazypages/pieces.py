"""What the missing memory of a process is made of: pieces of frames."""

from __future__ import annotations

from typing import Self

import numpy as np
import numpy.typing as npt

from snaplib.checkpoint.lazypages.layout import Layout
from snaplib.store.codec import ZERO
from snaplib.store.index import PAGE_BYTES, Index

__all__ = ["Pieces", "hot_frames"]

#: What is put into a process at once, while it waits with what it wants to change.
_CHUNK_BYTES = 256 << 10
#: Frames that are fetched before a task runs: 16 MiB.
_HOT_FRAMES = 4
_PAGE = np.uint64(PAGE_BYTES)


class Pieces:
    """The pieces of one process.

    Args:
        index: The snapshot's index.
        runs: RUN, shape (n,): the process's missing pages, in the order of addresses.
    """

    def __init__(self, index: Index, runs: npt.NDArray[np.void]) -> None:
        self._starts = index.starts
        # Copies: the columns of a packed array are slow to search.
        self._begins = runs["vaddr"].copy()
        self._ends = self._begins + runs["pages"] * _PAGE
        self._positions = runs["position"].copy()
        run, before, pieces = index.pieces_of(runs)
        # Zeros need not come: they are what is found where nothing is.
        order = np.flatnonzero(index.frames["codec"][pieces["frame"]] != ZERO)
        order = order[np.argsort(pieces["frame"][order], kind="stable")]
        run, before, pieces = run[order], before[order], pieces[order]
        self._addresses = self._begins[run] + before * _PAGE
        self._offsets = pieces["first"].astype(np.uint64) * _PAGE
        self._sizes = pieces["pages"] * _PAGE
        self._frames = pieces["frame"].copy()

    @classmethod
    def by_process(cls, index: Index, runs: npt.NDArray[np.void]) -> dict[int, Self]:
        """Return the pieces of each process that missing pages are of.

        Args:
            index: The snapshot's index.
            runs: RUN, shape (n,): missing pages, in the order of addresses within a process.
        """
        ids = runs["id"]
        return {int(pid): cls(index, runs[ids == pid]) for pid in sorted(set(ids.tolist()))}

    def layout(self) -> Layout:
        """Return where the memory is before the process has changed anything."""
        return Layout.of(self._begins, self._ends)

    def frames(self) -> set[int]:
        """Return the frames that are needed."""
        return set(self._frames.tolist())

    def frame_at(self, address: int) -> int | None:
        """Return the frame that has the page of an address, perhaps one of zeros; None where there is no such page."""
        place = int(np.searchsorted(self._begins, np.uint64(address), "right")) - 1
        if place < 0 or address >= int(self._ends[place]):
            return None
        before = (address - int(self._begins[place])) // PAGE_BYTES
        position = np.uint64(int(self._positions[place]) + before)
        return int(np.searchsorted(self._starts, position, "right")) - 1

    def nothing_at(self, address: int, most: int) -> int:
        """Return for how many bytes from an address on, whole pages and no more than ``most``, there are no pages."""
        place = int(np.searchsorted(self._begins, np.uint64(address), "right"))
        if place and address < int(self._ends[place - 1]):
            return 0
        return min(most, int(self._begins[place]) - address) if place < len(self._begins) else most

    def chunks(self, frame: int, near: int | None = None) -> list[tuple[int, int, int]]:
        """Return where the bytes of a frame belong.

        Args:
            frame: The frame.
            near: An address that somebody waits for; what follows it comes next, and what is before it last.

        Returns:
            Address, offset in the frame and number of bytes of each, none too large to be put at once.
        """
        low, high = np.searchsorted(self._frames, [frame, frame + 1])
        chunks = [
            (address + at, offset + at, min(_CHUNK_BYTES, size - at))
            for address, offset, size in zip(
                self._addresses[low:high].tolist(),
                self._offsets[low:high].tolist(),
                self._sizes[low:high].tolist(),
                strict=True,
            )
            for at in range(0, size, _CHUNK_BYTES)
        ]
        if near is None:
            return chunks
        place = next((at for at, one in enumerate(chunks) if one[0] <= near < one[0] + one[2]), 0)
        return chunks[place:] + chunks[:place]


def hot_frames(index: Index) -> list[int]:
    """Return the frames that a task is likely to want first.

    A log is written in the order of time: what was copied last is what the task had changed last.  Where all of it was
    copied at once, the last addresses were, which are those of libraries and stacks.

    Args:
        index: The snapshot's index.

    Returns:
        The last few frames that hold pages which are still good, none of zeros, the last one first.
    """
    used = np.unique(index.pieces(index.runs)["frame"])
    stored = used[index.frames["stored_bytes"][used] > 0]
    last: list[int] = stored[::-1][:_HOT_FRAMES].tolist()
    return last
