"""Which pages of a process are where they were: the frame behind each address, remembered from one look to the next.

A soft-dirty mark alone does not tell that a page is the one that was there before.  Two ways to another page with no
mark, both in all kernels up to 7.2 at least: mremap(2) of 2 MiB and more moves whole page tables as they are, marks
included (move_normal_pmd in the kernel's mm/mremap.c); and memory that was dropped and is read again shows the page of
zeros, small or huge, which nobody has written.  In both the frame has changed.
"""

from __future__ import annotations

import bisect
import functools
import mmap
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from snaplib.kernel.pagemap import Category, Pagemap
from snaplib.track.records import MemoryKind
from snaplib.track.runs import PAGE_BYTES, RunArray, join_runs
from snaplib.track.states import to_runs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snaplib.kernel.pagemap import RegionArray
    from snaplib.track.areas import Area

__all__ = ["Frames"]

# Entries of /proc/PID/pagemap: Documentation/admin-guide/mm/pagemap.rst.
_PRESENT = np.uint64(1 << 63)
_SWAPPED = np.uint64(1 << 62)
_OF_FILE = np.uint64(1 << 61)
_SOFT_DIRTY = np.uint64(1 << 55)
_NUMBER = np.uint64((1 << 55) - 1)
#: Where a page is: its frame, or its place in swap, and which of the two.
_PLACE = _PRESENT | _SWAPPED | _NUMBER

#: Pages that are looked at together; what holds none of them is not remembered.
_PIECE_PAGES = 1 << 18

_EntryArray = npt.NDArray[np.uint64]


class Frames:
    """The places of all private pages of a process at one moment."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._places: list[_EntryArray] = []

    def note(self, pagemap: Pagemap, area: Area) -> None:
        """Remember the pages of an area; areas come in ascending order."""
        for start, entries in _pieces(pagemap, area):
            self.remember(start, entries)

    def compare(self, pagemap: Pagemap, area: Area, now: Frames | None = None) -> RunArray:
        """Return the pages of an area that are marked, or not where they were.

        Args:
            pagemap: Of the process.
            area: Private memory.
            now: Told where they are now.
        """
        parts = []
        for start, entries in _pieces(pagemap, area):
            there = entries & (_PRESENT | _SWAPPED) != 0
            if area.kind is MemoryKind.PRIVATE_FILE:
                there &= entries & _OF_FILE == 0
            places = entries & _PLACE
            # Without the capability to see them all frames are 0.
            hidden = (entries & _PRESENT != 0) & (entries & _NUMBER == 0)
            moved = places != self._before(start, len(entries))
            dirty = there & (moved | hidden | (entries & _SOFT_DIRTY != 0))
            zero = dirty & (places == _zero_page())
            parts.append(to_runs(_regions(dirty & ~zero, start, 0), area.kind))
            parts.append(to_runs(_regions(zero, start, int(Category.PFNZERO)), area.kind))
            if now is not None:
                now.remember(start, entries)
        return join_runs(parts)

    def remember(self, start: int, entries: _EntryArray) -> None:
        """Remember pages from an address up, by their entries; ascending."""
        self._starts.append(start)
        self._places.append(entries & _PLACE)

    def _before(self, start: int, count: int) -> _EntryArray:
        found = np.zeros(count, np.uint64)
        at = max(bisect.bisect_right(self._starts, start) - 1, 0)
        end = start + count * PAGE_BYTES
        for begin, places in zip(self._starts[at:], self._places[at:], strict=True):
            if begin >= end:
                break
            first, skip = (begin - start) // PAGE_BYTES, 0
            if first < 0:
                first, skip = 0, -first
            part = places[skip : skip + count - first]
            found[first : first + len(part)] = part
        return found


def _pieces(pagemap: Pagemap, area: Area) -> Iterator[tuple[int, _EntryArray]]:
    """Yield the entries of what of an area is populated, by address."""
    for start in range(area.start, area.end, _PIECE_PAGES * PAGE_BYTES):
        end = min(area.end, start + _PIECE_PAGES * PAGE_BYTES)
        entries = pagemap.entries(start, end)
        if (entries & (_PRESENT | _SWAPPED)).any():
            yield start, entries


def _regions(matching: npt.NDArray[np.bool_], start: int, state: int) -> RegionArray:
    edges = np.flatnonzero(np.diff(matching, prepend=False, append=False)).astype(np.uint64)
    regions = np.empty((edges.size // 2, 3), np.uint64)
    regions[:, :2] = edges.reshape(-1, 2) * np.uint64(PAGE_BYTES) + np.uint64(start)
    regions[:, 2] = state
    return regions


@functools.cache
def _zero_page() -> np.uint64:
    """Return the place of the page of zeros, by reading a page that was never written."""
    page = np.frombuffer(mmap.mmap(-1, PAGE_BYTES, flags=mmap.MAP_PRIVATE), np.uint8)
    if page[0]:
        raise AssertionError("memory that was never written is not zero")
    try:
        with Pagemap("/proc/self/pagemap") as pagemap:
            (entry,) = pagemap.entries(page.ctypes.data, page.ctypes.data + PAGE_BYTES)
    except OSError:
        return np.uint64(0)
    return entry & _PLACE if entry & _NUMBER else np.uint64(0)
