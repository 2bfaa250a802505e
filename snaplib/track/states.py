"""Which pages of an area changed, and which hold anything: one way of asking for each kind of memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from snaplib.kernel.pagemap import Category
from snaplib.track.records import MemoryKind, Unknown
from snaplib.track.runs import PAGE_BYTES, RUN_DTYPE, RunArray, join_runs

if TYPE_CHECKING:
    from snaplib.kernel.pagemap import Pagemap, RegionArray
    from snaplib.track.areas import Area

__all__ = ["changed", "populated", "solid_pages", "to_runs"]

_THERE = Category.PRESENT | Category.SWAPPED
_ANONYMOUS = _THERE | Category.PFNZERO | Category.HUGE


def changed(pagemap: Pagemap, area: Area, start: int, end: int, *, rearm: bool) -> RunArray:
    """Return the pages of a part of a registered area that were written since they were armed.

    Args:
        pagemap: Of the process.
        area: One mapping.
        start: First address of the part.
        end: Address after its last.
        rearm: Arm them again, in the same step.

    Raises:
        PermissionError: The area is not registered, or only in part; some of it may have been
            armed again without being reported.
        ProcessLookupError: The address space is gone.
    """
    if area.kind is MemoryKind.PRIVATE:
        # Only what is populated is armed: an armed hole is a marker in the page table, which makes
        # CRIU's dump larger or fail.
        regions = pagemap.scan(
            start,
            end,
            having=Category.WRITTEN,
            any_of=_THERE,
            report=Category.WRITTEN | _ANONYMOUS,
            protect=rearm,
            check_registered=True,
        )
        return to_runs(regions, area.kind)
    if area.kind is MemoryKind.PRIVATE_FILE:
        # The task's own copies only. One that was armed and then dropped (MADV_DONTNEED) leaves a
        # marker, which looks like a clean page in swap: count all of those.
        regions = pagemap.scan(
            start,
            end,
            having=Category.WRITTEN,
            lacking=Category.FILE,
            any_of=_THERE,
            report=Category.WRITTEN | _THERE,
            protect=rearm,
            check_registered=True,
        )
        swapped = pagemap.scan(start, end, having=Category.SWAPPED, report=Category.SWAPPED)
        return join_runs((to_runs(regions, area.kind), to_runs(swapped, area.kind)))
    # Shared: reclaim may unmap a written page and leave a hole, so holes are armed as well.
    regions = pagemap.scan(
        start,
        end,
        having=Category.WRITTEN,
        report=Category.WRITTEN | _THERE,
        protect=rearm,
        check_registered=True,
    )
    return to_runs(regions, area.kind)


def populated(pagemap: Pagemap, area: Area, *, most_pages: int = 0) -> RegionArray:
    """Return the pages of an area that may hold something, as regions.

    Of shared memory all of it may: others fill it too.

    Args:
        pagemap: Of the process.
        area: One mapping.
        most_pages: Stop after that many; 0 for no limit.
    """
    if area.kind in (MemoryKind.SHARED, MemoryKind.SHARED_FILE):
        return np.array([(area.start, area.end, 0)], np.uint64)
    private_file = area.kind is MemoryKind.PRIVATE_FILE
    return pagemap.scan(
        area.start,
        area.end,
        lacking=Category.FILE if private_file else 0,
        any_of=_THERE,
        report=_THERE if private_file else _ANONYMOUS,
        most_pages=most_pages,
    )


def to_runs(regions: RegionArray, kind: MemoryKind, why: Unknown = Unknown.KNOWN) -> RunArray:
    """Return regions as runs of one kind."""
    runs = np.empty(len(regions), RUN_DTYPE)
    runs["start"] = regions[:, 0]
    runs["pages"] = (regions[:, 1] - regions[:, 0]) // np.uint64(PAGE_BYTES)
    runs["state"] = regions[:, 2]
    runs["kind"] = kind
    runs["why"] = why
    return runs


def solid_pages(runs: RunArray) -> int:
    """Return how many pages hold something else than zeros, as far as is known."""
    empty = (runs["state"] & np.uint16(Category.PFNZERO)) != 0
    empty |= runs["why"] == Unknown.UNSEEN
    return int(runs["pages"][~empty].sum())
