"""Which pages changed, which hold anything, and which nobody watches: each kind of memory its own way.

The ranges that are asked about may have holes, and mappings in them that are not registered: the
first question passes over those, the second tells what they hold. Asked in this order, whatever the
task does to its mappings meanwhile, a page is in one answer or the other, or its mapping is new.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from snaplib.kernel.pagemap import Category
from snaplib.track.records import MemoryKind, Unknown
from snaplib.track.runs import PAGE_BYTES, RUN_DTYPE, RunArray, join_runs

if TYPE_CHECKING:
    from snaplib.kernel.pagemap import Pagemap, RegionArray
    from snaplib.track.areas import Area

__all__ = ["changed", "populated", "solid_pages", "stale", "to_runs", "unwatched"]

# Plain numbers: scans come by the thousand, and arithmetic with enums takes its time.
_WATCHED = int(Category.WPALLOWED)
_WRITTEN = int(Category.WRITTEN)
_FILE = int(Category.FILE)
_SWAPPED = int(Category.SWAPPED)
_THERE = int(Category.PRESENT | Category.SWAPPED)
_ANONYMOUS = int(_THERE | Category.PFNZERO | Category.HUGE)
_ZERO = np.uint16(Category.PFNZERO)


def changed(pagemap: Pagemap, kind: MemoryKind, start: int, end: int, *, rearm: bool) -> RunArray:
    """Return the pages of a range that were written since they were armed.

    Args:
        pagemap: Of the process.
        kind: Of all watched memory in the range.
        start: First address.
        end: Address after the last.
        rearm: Arm them again, in the same step.

    Raises:
        ProcessLookupError: The address space is gone.
    """
    if kind is MemoryKind.PRIVATE:
        # Only what is populated is armed: an armed hole is a marker in the page table, which makes
        # CRIU's dump larger or fail.
        regions = pagemap.scan(
            start,
            end,
            having=_WATCHED | _WRITTEN,
            any_of=_THERE,
            report=_WRITTEN | _ANONYMOUS,
            protect=rearm,
        )
        return to_runs(regions, kind)
    if kind is MemoryKind.PRIVATE_FILE:
        # The task's own copies only. One that was armed and then dropped (MADV_DONTNEED) leaves a
        # marker, which looks like a clean page in swap: count all of those.
        regions = pagemap.scan(
            start,
            end,
            having=_WATCHED | _WRITTEN,
            lacking=_FILE,
            any_of=_THERE,
            report=_WRITTEN | _THERE,
            protect=rearm,
        )
        swapped = pagemap.scan(start, end, having=_WATCHED | _SWAPPED, report=_SWAPPED)
        if not swapped.size:
            return to_runs(regions, kind)
        return join_runs((to_runs(regions, kind), to_runs(swapped, kind)))
    # Shared: reclaim may unmap a written page and leave a hole, so holes are armed as well.
    regions = pagemap.scan(
        start,
        end,
        having=_WATCHED | _WRITTEN,
        report=_WRITTEN | _THERE,
        protect=rearm,
    )
    return to_runs(regions, kind)


def unwatched(pagemap: Pagemap, kind: MemoryKind, start: int, end: int) -> RegionArray:
    """Return what mappings of a range that are not registered may hold, as regions.

    Registered mappings are passed over, without a look at their pages. The memory of devices is
    passed over too, registered or not.
    """
    if kind in (MemoryKind.SHARED, MemoryKind.SHARED_FILE):
        return pagemap.scan(start, end, lacking=_WATCHED)
    own_only = _FILE if kind is MemoryKind.PRIVATE_FILE else 0
    return pagemap.scan(start, end, lacking=_WATCHED | own_only, any_of=_THERE)


def populated(pagemap: Pagemap, area: Area) -> RegionArray:
    """Return the pages of an area that may hold something, as regions.

    Of shared memory all of it may: others fill it too.
    """
    if area.kind in (MemoryKind.SHARED, MemoryKind.SHARED_FILE):
        return np.array([(area.start, area.end, 0)], np.uint64)
    own_only = area.kind is MemoryKind.PRIVATE_FILE
    return pagemap.scan(
        area.start,
        area.end,
        lacking=_FILE if own_only else 0,
        any_of=_THERE,
        report=_THERE if own_only else _ANONYMOUS,
    )


def stale(pagemap: Pagemap, area: Area) -> bool:
    """Whether pages of a mapping are armed already when it has just been registered.

    A kernel bug: mremap(2) can leave protection bits in a mapping that lost its registration, and
    such a page can be written without losing the bit. Registered again, its writes are never seen.
    """
    found = pagemap.scan(area.start, area.end, lacking=_WRITTEN, any_of=_THERE, most_pages=1)
    return bool(found.size)


def to_runs(regions: RegionArray, kind: MemoryKind, why: Unknown = Unknown.KNOWN) -> RunArray:
    """Return regions as runs of one kind."""
    runs = np.empty(len(regions), RUN_DTYPE)
    if len(regions):
        runs["start"] = regions[:, 0]
        runs["pages"] = (regions[:, 1] - regions[:, 0]) // np.uint64(PAGE_BYTES)
        runs["state"] = regions[:, 2]
        runs["kind"] = kind
        runs["why"] = why
    return runs


def solid_pages(runs: RunArray) -> int:
    """Return how many pages hold something else than zeros, as far as is known."""
    if not runs.size:
        return 0
    empty = (runs["state"] & _ZERO) != 0
    empty |= runs["why"] == Unknown.UNSEEN
    return int(runs["pages"][~empty].sum())
