"""The index of a page log: which pages there are, and where their bytes lie.

All frames, in the order of their table, make one long sequence of pages; a run's position is where in
it the run begins.  So a run needs not know of frames, nor a frame of runs, and finding a page is two
binary searches.  Frames may hold pages that no run has: older copies of pages that changed since.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from snaplib.store.codec import RAW, ZERO, ZSTD

__all__ = ["ENTRY", "FRAME", "PAGE_BYTES", "PIECE", "RUN", "Index", "Space"]

PAGE_BYTES = 4096

#: A run of more pages than an address space has is none, and a frame of more than 64 MiB nobody has written:
#: what says so is damaged, or wants to fill our memory.
_MOST_PAGES = 1 << 52
_MOST_FRAME_PAGES = 1 << 14

#: One run: consecutive pages of one space.  ``vaddr`` is in bytes, ``pages`` and ``position`` in
#: pages.
RUN = np.dtype(
    [
        ("kind", "<u4"),
        ("flags", "<u4"),
        ("id", "<u8"),
        ("vaddr", "<u8"),
        ("pages", "<u8"),
        ("position", "<u8"),
    ]
)

#: A run as CRIU's pagemap images have it; ``vaddr`` is in bytes.
ENTRY = np.dtype([("vaddr", "<u8"), ("pages", "<u8"), ("flags", "<u4")])

#: One frame: ``pages`` pages, stored as ``stored_bytes`` bytes at ``offset`` of a segment.
FRAME = np.dtype(
    [
        ("segment", "<u4"),
        ("codec", "<u4"),
        ("offset", "<u8"),
        ("stored_bytes", "<u4"),
        ("pages", "<u4"),
        ("checksum", "<u8"),
    ]
)

#: One piece of a frame: ``pages`` pages from page ``first`` of it.
PIECE = np.dtype([("frame", "<u4"), ("first", "<u4"), ("pages", "<u8")])


@attrs.frozen(order=True)
class Space:
    """What a page belongs to.

    Attributes:
        kind: 1 a task's address space, 2 a shared memory; CRIU's numbers.
        id: The pid that CRIU gave, or the id of the shared memory.
    """

    kind: int
    id: int


@attrs.frozen(eq=False)
class Index:
    """Which pages a page log has, and where.

    Attributes:
        runs: RUN, shape (n,), sorted by space and address, without overlaps.
        frames: FRAME, shape (m,), in the order of the sequence of pages.
    """

    runs: npt.NDArray[np.void]
    frames: npt.NDArray[np.void]
    #: uint64, shape (m + 1,): the position in the sequence at which each frame begins, and its end.
    starts: npt.NDArray[np.uint64] = attrs.field(init=False, repr=False)

    @starts.default
    def _starts(self) -> npt.NDArray[np.uint64]:
        starts = np.zeros(len(self.frames) + 1, dtype=np.uint64)
        np.cumsum(self.frames["pages"], out=starts[1:], dtype=np.uint64)
        return starts

    @classmethod
    def build(cls, runs: npt.NDArray[np.void], frames: npt.NDArray[np.void]) -> Index:
        """Return the index of runs in any order.

        Args:
            runs: RUN, shape (n,).
            frames: FRAME, shape (m,).
        """
        if not bool(_in_order(runs).all()):
            runs = runs[np.lexsort((runs["vaddr"], runs["id"], runs["kind"]))]
        return cls(runs, frames)

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return int(self.runs["pages"].sum())

    def spaces(self) -> list[Space]:
        """Return the spaces there are, in order."""
        runs = self.runs
        if not len(runs):
            return []
        breaks = np.flatnonzero(
            (runs["kind"][1:] != runs["kind"][:-1]) | (runs["id"][1:] != runs["id"][:-1])
        )
        return [
            Space(int(runs["kind"][first]), int(runs["id"][first]))
            for first in np.concatenate(([0], breaks + 1))
        ]

    def runs_of(self, space: Space) -> npt.NDArray[np.void]:
        """Return the runs of one space, a view: RUN, shape (k,), in the order of addresses."""
        low = int(np.searchsorted(self.runs["kind"], space.kind, "left"))
        high = int(np.searchsorted(self.runs["kind"], space.kind, "right"))
        ids = self.runs["id"][low:high]
        first = low + int(np.searchsorted(ids, space.id, "left"))
        return self.runs[first : low + int(np.searchsorted(ids, space.id, "right"))]

    def frame_counts(self) -> dict[str, int]:
        """Return how many frames there are of each kind, by its name."""
        kinds = {"raw": RAW, "zstd": ZSTD, "zero": ZERO}
        return {name: int((self.frames["codec"] == kind).sum()) for name, kind in kinds.items()}

    def find(self, space: Space, vaddr: int, pages: int) -> npt.NDArray[np.void]:
        """Return the parts of runs that lie in a range of addresses: RUN, shape (k,)."""
        runs = self.runs_of(space)
        end = vaddr + pages * PAGE_BYTES
        ends = runs["vaddr"] + runs["pages"] * np.uint64(PAGE_BYTES)
        low = int(np.searchsorted(ends, np.uint64(vaddr), "right"))
        high = int(np.searchsorted(runs["vaddr"], np.uint64(end), "left"))
        found = runs[low:high].copy()
        if not len(found):
            return found
        begins = np.maximum(found["vaddr"], np.uint64(vaddr))
        before = (begins - found["vaddr"]) // np.uint64(PAGE_BYTES)
        ends = np.minimum(ends[low:high], np.uint64(end))
        found["vaddr"] = begins
        found["pages"] = (ends - begins) // np.uint64(PAGE_BYTES)
        found["position"] += before
        return found

    def pieces(self, runs: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        """Return where the bytes of runs lie, one after another.

        Args:
            runs: RUN, shape (k,), in any order.

        Returns:
            PIECE, shape (p,).
        """
        return self._pieces(*_joined(runs["position"], runs["pages"]))[1]

    def pieces_of(
        self, runs: npt.NDArray[np.void]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64], npt.NDArray[np.void]]:
        """Return where the bytes of each of some runs lie, one after another.

        Args:
            runs: RUN, shape (k,), in any order.

        Returns:
            Of each piece: its run, int64; how many pages of the run come before it, uint64; and PIECE. Shape (p,).
        """
        begins = runs["position"]
        run, pieces = self._pieces(begins, begins + runs["pages"])
        return run, self.starts[pieces["frame"]] + pieces["first"] - begins[run], pieces

    def _pieces(
        self, begins: npt.NDArray[np.uint64], ends: npt.NDArray[np.uint64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.void]]:
        """Cut ranges of positions where frames end; return of each piece its range, and PIECE."""
        first = np.searchsorted(self.starts, begins, "right") - 1
        count = np.searchsorted(self.starts, ends, "left") - first
        # The frames first, first + 1, ... of each range, all ranges after one another.
        run = np.repeat(np.arange(len(begins)), count)
        frame = first[run] + np.arange(len(run)) - (np.cumsum(count) - count)[run]
        begins = np.maximum(begins[run], self.starts[frame])
        pieces = np.empty(len(run), dtype=PIECE)
        pieces["frame"] = frame
        pieces["first"] = begins - self.starts[frame]
        pieces["pages"] = np.minimum(ends[run], self.starts[frame + 1]) - begins
        return run, pieces

    def problems(self) -> list[str]:
        """Return what contradicts itself in the index, one sentence each; empty if all is well."""
        found = []
        runs = self.runs
        positions, pages = runs["position"], runs["pages"]
        ends = runs["vaddr"] + pages * np.uint64(PAGE_BYTES)
        same = (runs["kind"][1:] == runs["kind"][:-1]) & (runs["id"][1:] == runs["id"][:-1])
        checks: list[tuple[str, Any]] = [
            ("is empty", pages == 0),
            # The other sums cannot overflow then.
            ("is too long", pages >= _MOST_PAGES),
            ("lies beyond the last frame", positions > self.starts[-1]),
            ("is not aligned to a page", runs["vaddr"] % PAGE_BYTES != 0),
            ("goes past the end of memory", ends < runs["vaddr"]),
            ("overlaps its successor", same & (runs["vaddr"][1:] < ends[:-1])),
            ("is out of order", ~_in_order(runs)),
            ("has bytes beyond the last frame", positions + pages > self.starts[-1]),
        ]
        for what, mask in checks:
            if mask.any():
                found.append(f"run {int(np.argmax(mask))} {what}")
        if not set(np.unique(self.frames["codec"]).tolist()) <= {RAW, ZSTD, ZERO}:
            found.append("a frame is of a kind that is not known")
        if (self.frames["pages"] > _MOST_FRAME_PAGES).any():
            found.append("a frame is larger than any that is written")
        if (
            self.frames["stored_bytes"] > self.frames["pages"].astype(np.uint64) * PAGE_BYTES
        ).any():
            found.append("a frame is stored in more bytes than it has")
        if self.pages > self.starts[-1]:
            found.append(f"runs of {self.pages} pages over frames of {int(self.starts[-1])}")
        return found


def _in_order(runs: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    """Return for each run but the last whether it sorts before its successor."""
    in_order: npt.NDArray[np.bool_] = runs["vaddr"][:-1] <= runs["vaddr"][1:]
    for name in ("id", "kind"):
        here, there = runs[name][:-1], runs[name][1:]
        in_order = (here < there) | ((here == there) & in_order)
    return in_order


def _joined(
    positions: npt.NDArray[np.uint64], pages: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Return begins and ends of positions, those that follow one another joined."""
    ends = positions + pages
    if not len(positions):
        return positions, ends
    breaks = np.flatnonzero(positions[1:] != ends[:-1])
    return positions[np.concatenate(([0], breaks + 1))], ends[np.concatenate((breaks, [-1]))]
