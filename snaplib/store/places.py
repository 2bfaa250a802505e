"""Where pages lie: a map from page numbers to places in frames, as runs, and the algebra of it.

A page log is written over hours, and each page of it again and again; only the last copy counts.
So the log keeps one flat map from pages to places, and every round of copies is laid over it.
Millions of pages are thousands of runs, and every operation is a search over arrays.
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

from snaplib.arrays import distinct
from snaplib.store.runs import RunSet

__all__ = ["PLACE_SHIFT", "Places", "frame_of"]

#: A place is a frame's number, shifted by so many bits, and the number of a page in it.
PLACE_SHIFT = 20

#: Page numbers and places: uint64.
Numbers = npt.NDArray[np.uint64]


def frame_of(places: Numbers) -> npt.NDArray[np.int64]:
    """Return the frames that places are in."""
    return (places >> np.uint64(PLACE_SHIFT)).astype(np.int64)


@attrs.frozen(eq=False)
class Places:
    """An immutable map from pages to places.

    Build one with `of`; the constructor takes what is normal already.

    Attributes:
        begins: uint64, shape (n,): the first page of each run, ascending.
        ends: uint64, shape (n,): the page after the last of each run; no run overlaps the next.
        places: uint64, shape (n,): where the first page lies; the others follow it in its frame.
    """

    begins: Numbers
    ends: Numbers
    places: Numbers

    @classmethod
    def none(cls) -> Places:
        """Return the map without pages."""
        nothing = np.empty(0, np.uint64)
        return cls(nothing, nothing, nothing)

    @classmethod
    def of(cls, begins: npt.ArrayLike, counts: npt.ArrayLike, places: npt.ArrayLike) -> Places:
        """Return the map of some runs.

        Args:
            begins: Integers, shape (n,): the first page of each.
            counts: Integers, shape (n,): how many pages each has; none goes past its frame.
            places: Integers, shape (n,): where the first page of each lies.  Of a page that several
                have, what the last says holds.
        """
        low, place = np.asarray(begins, np.uint64), np.asarray(places, np.uint64)
        high = low + np.asarray(counts, np.uint64)
        order = np.argsort(low, kind="stable")
        if bool((high[order][:-1] > low[order][1:]).any()):
            return cls._last_wins(low, high, place)
        return _joined(low[order], high[order], place[order])

    @classmethod
    def _last_wins(cls, low: Numbers, high: Numbers, place: Numbers) -> Places:
        """Cut runs at each other's bounds, and of each piece that several have keep the last."""
        bounds = distinct(np.concatenate((low, high)))
        first = np.searchsorted(bounds, low)
        run, step = _counted(np.searchsorted(bounds, high) - first)
        piece = first[run] + step
        # Reversed, because unique() gives the first of equals.
        chosen, at = np.unique(piece[::-1], return_index=True)
        owner = run[::-1][at]
        begins = bounds[chosen]
        return _joined(begins, bounds[chosen + 1], place[owner] + (begins - low[owner]))

    def __len__(self) -> int:
        """How many runs there are."""
        return len(self.begins)

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return int((self.ends - self.begins).sum())

    def covered(self) -> RunSet:
        """Return the set of pages that there are."""
        return RunSet.of(self.begins, self.ends)

    def cut(self, low: Numbers, high: Numbers) -> tuple[npt.NDArray[np.int64], Places]:
        """Cut ranges out of the map.

        Args:
            low: uint64, shape (m,): the first page of each range, in any order.
            high: uint64, shape (m,): the page after the last.

        Returns:
            For each run found the range that it was found for, and the runs, range by range.
        """
        first = np.searchsorted(self.ends, low, "right")
        after = np.searchsorted(self.begins, high, "left")
        query, step = _counted(np.maximum(after - first, 0))
        run = first[query] + step
        begins = np.maximum(self.begins[run], low[query])
        ends = np.minimum(self.ends[run], high[query])
        return query, Places(begins, ends, self.places[run] + (begins - self.begins[run]))

    def within(self, pages: RunSet) -> Places:
        """Return what is known of some pages."""
        return self.cut(pages.begins, pages.ends)[1]

    def without(self, pages: RunSet) -> Places:
        """Return the map without some pages."""
        if not len(pages) or not len(self):
            return self
        edge = np.array([0, np.iinfo(np.uint64).max], np.uint64)
        low = np.concatenate((edge[:1], pages.ends))
        high = np.concatenate((pages.begins, edge[1:]))
        return self.cut(low, high)[1]

    def under(self, newer: Places) -> Places:
        """Return this map with a newer one laid over it."""
        rest = self.without(newer.covered())
        begins = np.concatenate((rest.begins, newer.begins))
        order = np.argsort(begins, kind="stable")
        ends = np.concatenate((rest.ends, newer.ends))[order]
        places = np.concatenate((rest.places, newer.places))[order]
        return _joined(begins[order], ends, places)

    def moved(self, frames: npt.NDArray[np.int64]) -> Places:
        """Return the map with other numbers for the frames.

        Args:
            frames: int64: the new number of each frame, by its old one.
        """
        inside = self.places & np.uint64((1 << PLACE_SHIFT) - 1)
        moved = frames[frame_of(self.places)].astype(np.uint64) << np.uint64(PLACE_SHIFT)
        return Places(self.begins, self.ends, moved | inside)

    def pages_of_frames(self, count: int) -> npt.NDArray[np.int64]:
        """Return how many pages of each frame there are.

        Args:
            count: How many frames there are.
        """
        lengths = (self.ends - self.begins).astype(np.float64)
        return np.bincount(frame_of(self.places), lengths, count).astype(np.int64)


def _joined(begins: Numbers, ends: Numbers, places: Numbers) -> Places:
    """Return the map of ascending runs, those joined that follow one another in a frame too."""
    follows = (ends[:-1] == begins[1:]) & (places[:-1] + (ends[:-1] - begins[:-1]) == places[1:])
    if not follows.any():
        return Places(begins, ends, places)
    first = np.flatnonzero(np.concatenate(([True], ~follows)))
    last = np.concatenate((first[1:] - 1, [len(begins) - 1]))
    return Places(begins[first], ends[last], places[first])


def _counted(
    counts: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return for counts 2, 0, 3 the owners 0, 0, 2, 2, 2 and the steps 0, 1, 0, 1, 2."""
    owner = np.repeat(np.arange(len(counts)), counts)
    step = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    return owner, step
