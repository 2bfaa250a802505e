"""The state of a process's pages: `/proc/PID/pagemap` and its ioctl PAGEMAP_SCAN.

The ABI is that of linux/fs.h and the kernel's Documentation/admin-guide/mm/pagemap.rst; the ioctl
is Linux commit 52526ca7fdb9 (in v6.7).
"""

from __future__ import annotations

import enum
import errno
import fcntl
import mmap
import os

import numpy as np
import numpy.typing as npt

from snaplib.kernel.held import HeldDescriptor

__all__ = ["Category", "Pagemap", "RegionArray", "soft_dirty_supported"]

_PAGEMAP_SCAN = 0xC0606610  # _IOWR('f', 16, struct pm_scan_arg)
_WP_MATCHING = 1
_CHECK_WPASYNC = 2

#: The kernel collects at most 512 regions before it hands them out; with more room in our array it
#: begins again there and reports regions twice.
_REGIONS = 512

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

_CHUNK_PAGES = 1 << 20

#: Shape (n, 3), dtype uint64: start and end address, `Category` bits.
RegionArray = npt.NDArray[np.uint64]


class Category(enum.IntFlag):
    """What the kernel tells of a page: PAGE_IS_* of linux/fs.h."""

    #: Its mapping is registered for asynchronous write protection.
    WPALLOWED = 1 << 0
    WRITTEN = 1 << 1
    #: Of a file or shared memory, not anonymous. Asking for it makes a scan ten times slower.
    FILE = 1 << 2
    PRESENT = 1 << 3
    SWAPPED = 1 << 4
    #: The page of zeros that all read-only untouched memory shares.
    PFNZERO = 1 << 5
    #: Part of a transparent huge page mapped as one, or of a hugetlb page.
    HUGE = 1 << 6
    SOFT_DIRTY = 1 << 7


#: Category -> bit of an entry of the file itself.
_BITS = {
    int(Category.SOFT_DIRTY): 55,
    int(Category.FILE): 61,
    int(Category.SWAPPED): 62,
    int(Category.PRESENT): 63,
}
_CLASSIC = sum(_BITS)


class Pagemap(HeldDescriptor):
    """The open pagemap of one address space; after an exec it says ``ProcessLookupError``.

    Args:
        path: Such as ``/proc/1/pagemap``.

    Raises:
        OSError: There is no such process, or it is not ours to look at.
    """

    def __init__(self, path: str) -> None:
        super().__init__(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        self._regions = np.zeros((_REGIONS, 3), np.uint64)
        # struct pm_scan_arg: size, flags, start, end, walk_end, vec, vec_len, max_pages,
        # category_inverted, category_mask, category_anyof_mask, return_mask.
        self._buffer = bytearray(12 * 8)
        self._argument = np.frombuffer(self._buffer, np.uint64)

    def scan(
        self,
        start: int,
        end: int,
        *,
        having: int = 0,
        lacking: int = 0,
        any_of: int = 0,
        report: int = 0,
        protect: bool = False,
        check_registered: bool = False,
        most_pages: int = 0,
    ) -> RegionArray:
        """Return the regions of a range whose pages match, and the categories asked for.

        A kernel without the ioctl, or without a category, is asked in the classic way where that
        can tell the pages; of what is to be reported PFNZERO and HUGE are missing then.

        Args:
            start: First address.
            end: Address after the last.
            having: Categories all of which a page must have.
            lacking: Categories none of which it may have.
            any_of: Categories of which it must have one, if any is given.
            report: Categories to return.
            protect: Write-protect what is returned, in the same step.
            check_registered: Fail if a mapping in the range is not registered. It may have
                protected and forgotten others before: use it for one mapping a call.
            most_pages: Stop after that many pages; 0 for no limit.

        Returns:
            Array of shape (n, 3): start, end, categories.

        Raises:
            PermissionError: `check_registered` found an unregistered mapping.
            ProcessLookupError: The address space is gone.
        """
        flags = _WP_MATCHING * protect | _CHECK_WPASYNC * check_registered
        argument, regions = self._argument, self._regions
        argument[:] = (
            *(len(self._buffer), flags, start, end, 0, regions.ctypes.data, _REGIONS, most_pages),
            *(lacking, having | lacking, any_of, report),
        )
        found: list[RegionArray] = []
        while True:
            try:
                count = fcntl.ioctl(self._descriptor, _PAGEMAP_SCAN, self._buffer)
            except OSError as error:
                if error.errno not in (errno.ENOTTY, errno.EINVAL):
                    raise
                if flags or (having | lacking | any_of) & ~_CLASSIC or most_pages:
                    raise
                return self._read(
                    start, end, having=having, lacking=lacking, any_of=any_of, report=report
                )
            if count:
                found.append(regions[:count].copy())
            walked = int(argument[4])
            if walked >= end or most_pages or (count == 0 and walked <= argument[2]):
                break
            argument[2] = walked
        if not found:
            return np.empty((0, 3), np.uint64)
        return found[0] if len(found) == 1 else np.concatenate(found)

    def registered(self, address: int) -> bool:
        """Return whether the mapping at an address is registered for write protection."""
        try:
            # The kernel looks at the mapping before it looks at any page.
            found = self.scan(
                address,
                address + _PAGE_BYTES,
                having=Category.WPALLOWED,
                report=Category.WPALLOWED,
                check_registered=True,
            )
        except PermissionError:
            return False
        # Nothing is found where nothing is mapped any more.
        return bool(found.size)

    def soft_dirty(self, start: int, end: int, *, own_only: bool = False) -> RegionArray:
        """Return the populated pages of a range that are soft-dirty, as regions.

        Args:
            start: First address.
            end: Address after the last.
            own_only: Leave out pages of files.
        """
        return self.scan(
            start,
            end,
            having=Category.SOFT_DIRTY,
            lacking=Category.FILE if own_only else 0,
            any_of=Category.PRESENT | Category.SWAPPED,
        )

    def entries(self, start: int, end: int) -> npt.NDArray[np.uint64]:
        """Return what the file itself says of each page of a range, as pagemap.rst describes it.

        Args:
            start: First address.
            end: Address after the last.

        Raises:
            ProcessLookupError: The address space is gone.
        """
        count = (end - start) // _PAGE_BYTES
        content = os.pread(self._descriptor, count * 8, start // _PAGE_BYTES * 8)
        if len(content) < count * 8:
            raise ProcessLookupError(errno.ESRCH, "the address space is gone")
        return np.frombuffer(content, np.uint64)

    def _read(
        self, start: int, end: int, *, having: int, lacking: int, any_of: int, report: int
    ) -> RegionArray:
        """Answer as `scan` does from the file itself: eight bytes a page, present or not."""
        found = []
        for first in range(start, end, _CHUNK_PAGES * _PAGE_BYTES):
            entries = self.entries(first, min(end, first + _CHUNK_PAGES * _PAGE_BYTES))
            # A page is at most three of these at once, and most are none.
            states = np.zeros(len(entries), np.uint8)
            for category, bit in _BITS.items():
                if category & (having | lacking | any_of | report):
                    told = ((entries >> np.uint64(bit)) & np.uint64(1)).astype(np.uint8)
                    states |= told * np.uint8(category)
            matching = states & (having | lacking) == having
            if any_of:
                matching &= states & any_of != 0
            found.append(_regions(matching, states & np.uint8(report), first))
        return np.concatenate(found) if found else np.empty((0, 3), np.uint64)


def _regions(
    matching: npt.NDArray[np.bool_], states: npt.NDArray[np.uint8], start: int
) -> RegionArray:
    """Return runs of pages that match and are of one state."""
    told = np.where(matching, states.astype(np.int16), np.int16(-1))
    edges = np.flatnonzero(np.diff(told, prepend=np.int16(-1), append=np.int16(-1)))
    begins = edges[:-1][told[edges[:-1]] >= 0] if edges.size else edges
    ends = edges[1:][told[edges[:-1]] >= 0] if edges.size else edges
    regions = np.empty((begins.size, 3), np.uint64)
    regions[:, 0] = begins.astype(np.uint64) * np.uint64(_PAGE_BYTES) + np.uint64(start)
    regions[:, 1] = ends.astype(np.uint64) * np.uint64(_PAGE_BYTES) + np.uint64(start)
    regions[:, 2] = told[begins].astype(np.uint64)
    return regions


def soft_dirty_supported() -> bool:
    """Return whether this kernel has soft-dirty bits, by writing to a new page of our own."""
    page = np.frombuffer(mmap.mmap(-1, _PAGE_BYTES), np.uint8)
    page[0] = 1
    try:
        with Pagemap("/proc/self/pagemap") as pagemap:
            address = page.ctypes.data
            return bool(pagemap.soft_dirty(address, address + _PAGE_BYTES).size)
    except OSError:
        return False
