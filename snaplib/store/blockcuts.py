"""Where blocks are in pages that come one after another, and where to cut those so that no block is cut in two."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from snaplib.store.blocks import BLOCK_PAGES
from snaplib.store.runs import RunSet

__all__ = ["PageSequence", "blocks_in"]


def blocks_in(
    begins: npt.NDArray[np.uint64], counts: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """Return the blocks that are wholly in runs of pages.

    Args:
        begins: Shape (n,): the first page of each run.
        counts: Shape (n,): how many pages it has.

    Returns:
        Shape (m,) each: how many pages of the runs come before a block, and its first page.
    """
    skipped = (-begins % np.uint64(BLOCK_PAGES)).astype(np.int64)
    blocks = np.maximum(counts.astype(np.int64) - skipped, 0) // BLOCK_PAGES
    run = np.repeat(np.arange(len(blocks)), blocks)
    step = np.arange(len(run)) - np.repeat(np.cumsum(blocks) - blocks, blocks)
    inside = skipped[run] + step * BLOCK_PAGES
    before = np.cumsum(counts).astype(np.int64) - counts.astype(np.int64)
    return before[run] + inside, begins[run] + inside.astype(np.uint64)


class PageSequence:
    """The pages of a set, one after another, to be cut into pieces.

    Args:
        pages: The pages.
    """

    def __init__(self, pages: RunSet) -> None:
        self._pages = pages
        #: Where each run ends in the sequence.
        self._ends = np.cumsum(pages.ends - pages.begins)

    def __len__(self) -> int:
        """How many pages there are."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def whole_blocks(self, first: int, after: int) -> int:
        """Return where to end a piece so that no block is cut in two.

        Args:
            first: Where it begins.
            after: Where it ends at the latest.
        """
        pages, ends = self._pages, self._ends
        run = int(np.searchsorted(ends, after, "left"))
        last = int(pages.ends[run]) - (int(ends[run]) - after)
        cut = last % BLOCK_PAGES
        if last == int(pages.ends[run]) or last - cut <= int(pages.begins[run]):
            return after
        return max(first, after - cut)

    def part(self, first: int, after: int) -> RunSet:
        """Return the pages of a piece.

        Args:
            first: Where it begins.
            after: Where it ends.
        """
        pages, ends = self._pages, self._ends
        if first >= after:
            return RunSet(pages.begins[:0], pages.ends[:0])
        low = int(np.searchsorted(ends, first, "right"))
        high = int(np.searchsorted(ends, after, "left")) + 1
        begins, stops = pages.begins[low:high].copy(), pages.ends[low:high].copy()
        lengths = pages.ends[low] - pages.begins[low]
        begins[0] += np.uint64(first) - (ends[low] - lengths)
        stops[-1] -= ends[high - 1] - np.uint64(after)
        return RunSet(begins, stops)
