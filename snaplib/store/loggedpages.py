"""What a page log holds at a moment: where each page lies, in which frames, and what an index says of that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np
import numpy.typing as npt

from snaplib.errors import UsageError
from snaplib.store.blocks import Blocks
from snaplib.store.index import FRAME, PAGE_BYTES, RUN, Index, Space
from snaplib.store.numbering import SPACE_SHIFT
from snaplib.store.places import PLACE_SHIFT, Places, frame_of
from snaplib.store.runs import RunSet

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LoggedPages", "frames_in"]


@attrs.frozen(eq=False)
class LoggedPages:
    """What a page log holds.

    Attributes:
        spaces: The spaces, in the order of their numbers.
        places: Where the pages lie.
        frames: FRAME, shape (m,): the frames; their segments are numbers of the log's.
        blocks: What of them is known by its content.
    """

    spaces: tuple[Space, ...] = ()
    places: Places = attrs.field(factory=Places.none)
    frames: npt.NDArray[np.void] = attrs.field(factory=lambda: np.empty(0, FRAME))
    blocks: Blocks = attrs.field(factory=Blocks)

    def compacted(self) -> LoggedPages:
        """Return the same without the frames that hold no page any more."""
        live = self.places.pages_of_frames(len(self.frames)) > 0
        numbers = np.where(live, np.cumsum(live) - 1, -1)
        places, blocks = self.places.moved(numbers), self.blocks.moved(numbers)
        return LoggedPages(self.spaces, places, self.frames[live], blocks)

    def live_bytes(self, segments: int) -> npt.NDArray[np.float64]:
        """Return how many stored bytes of each segment are of pages that there are.

        Args:
            segments: How many segments there are.
        """
        frames = self.frames
        live = self.places.pages_of_frames(len(frames)) / np.maximum(frames["pages"], 1)
        weights = live * frames["stored_bytes"]
        return np.bincount(frames["segment"], weights, segments).astype(np.float64)

    def pages_in(self, segments: Sequence[int]) -> RunSet:
        """Return the numbers of the pages that are in some segments."""
        inside = frames_in(self.frames, segments)[frame_of(self.places.places)]
        return RunSet.of(self.places.begins[inside], self.places.ends[inside])

    def index(self, declared: npt.NDArray[np.uint64]) -> tuple[Index, Blocks]:
        """Return the index of some pages, and its blocks, whose places are positions in its sequence.

        Args:
            declared: uint64, shape (n, 3): of each declaration the number of its first page, how many, and flags.

        Raises:
            UsageError: Some are not there, or were declared twice.
        """
        owner, found = self.places.cut(declared[:, 0], declared[:, 0] + declared[:, 1])
        missing = int(declared[:, 1].sum()) - found.pages
        if missing:
            raise UsageError(f"{missing} of the pages that were declared are not in the log")
        used, compact = np.unique(frame_of(found.places), return_inverse=True)
        frames = self.frames[used]
        starts = np.cumsum(frames["pages"], dtype=np.uint64) - frames["pages"]
        inside = found.places & np.uint64((1 << PLACE_SHIFT) - 1)
        positions = starts[compact] + inside if len(used) else inside
        index = Index.build(self._runs(found, positions, owner, declared[:, 2]), frames)
        problems = index.problems()
        if problems:
            raise UsageError(f"the pages that were declared contradict each other: {problems[0]}")
        numbers = np.full(len(self.frames), -1, np.int64)
        numbers[used] = np.arange(len(used))
        blocks = self.blocks.moved(numbers)
        inside = blocks.places & np.uint64((1 << PLACE_SHIFT) - 1)
        return index, Blocks(index.starts[frame_of(blocks.places)] + inside, blocks.digests)

    def _runs(
        self,
        found: Places,
        positions: npt.NDArray[np.uint64],
        owner: npt.NDArray[np.int64],
        flags: npt.NDArray[np.uint64],
    ) -> npt.NDArray[np.void]:
        """Return runs of an index: what one declaration says was only cut where a frame ended."""
        lengths = found.ends - found.begins
        follows = (owner[1:] == owner[:-1]) & (positions[:-1] + lengths[:-1] == positions[1:])
        first = np.flatnonzero(np.concatenate((np.ones(min(1, len(owner)), np.bool_), ~follows)))
        runs = np.zeros(len(first), RUN)
        if len(first):
            space = (found.begins[first] >> np.uint64(SPACE_SHIFT)).astype(np.int64)
            page = found.begins[first] & np.uint64((1 << SPACE_SHIFT) - 1)
            runs["kind"] = np.array([one.kind for one in self.spaces])[space]
            runs["id"] = np.array([one.id for one in self.spaces], np.uint64)[space]
            runs["vaddr"] = page * np.uint64(PAGE_BYTES)
            runs["pages"] = np.add.reduceat(lengths, first)
            runs["flags"] = flags[owner[first]]
            runs["position"] = positions[first]
        return runs


def frames_in(frames: npt.NDArray[np.void], segments: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Tell of each frame whether it is in one of some segments.

    Args:
        frames: FRAME, shape (m,).
        segments: Their numbers.
    """
    # A table, for numpy.isin brings numpy.ma.
    numbers = frames["segment"].astype(np.int64)
    wanted = np.zeros(1 + max(int(numbers.max(initial=-1)), *segments, -1), np.bool_)
    wanted[np.asarray(segments, np.int64)] = True
    chosen: npt.NDArray[np.bool_] = wanted[numbers] & (frames["stored_bytes"] > 0)
    return chosen
