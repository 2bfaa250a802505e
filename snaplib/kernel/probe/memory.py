"""Trials of seeing which pages a process has written to, write-protect and soft-dirty, and of reading all of them."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
from pathlib import Path

from snaplib.kernel.hidden import reads_hidden_memory
from snaplib.kernel.probe.trial import Failed, Trial
from snaplib.kernel.syscalls import syscall

__all__ = ["TRIALS"]

_PAGE = mmap.PAGESIZE

# linux/userfaultfd.h
_UFFD_USER_MODE_ONLY = 1
_UFFD_API = 0xAA
_UFFD_FEATURE_WP_UNPOPULATED = 1 << 13
_UFFD_FEATURE_WP_ASYNC = 1 << 15
_UFFDIO_API = 0xC018AA3F
_UFFDIO_REGISTER = 0xC020AA00
_UFFDIO_REGISTER_MODE_WP = 2

# linux/fs.h
_PAGEMAP_SCAN = 0xC0606610
_PM_SCAN_WP_MATCHING = 1
_PAGE_IS_WRITTEN = 1 << 1
_PAGE_IS_PRESENT = 1 << 3

_PAGEMAP_SOFT_DIRTY = 1 << 55  # Documentation/admin-guide/mm/pagemap.rst


def _write_protect() -> str:
    memory, address = _two_pages()
    descriptor = syscall("userfaultfd", os.O_CLOEXEC | os.O_NONBLOCK | _UFFD_USER_MODE_ONLY)
    features = _UFFD_FEATURE_WP_ASYNC | _UFFD_FEATURE_WP_UNPOPULATED
    fcntl.ioctl(descriptor, _UFFDIO_API, struct.pack("=QQQ", _UFFD_API, features, 0))
    fcntl.ioctl(
        descriptor,
        _UFFDIO_REGISTER,
        struct.pack("=QQQQ", address, 2 * _PAGE, _UFFDIO_REGISTER_MODE_WP, 0),
    )
    pagemap = os.open("/proc/self/pagemap", os.O_RDONLY)
    _written(pagemap, address, arm=True)
    memory[_PAGE] = 2
    found = _written(pagemap, address, arm=False)
    if found != [(address + _PAGE, address + 2 * _PAGE)]:
        raise Failed(f"of two pages one was written, and {len(found)} runs were reported")
    return "userfaultfd WP_ASYNC with PAGEMAP_SCAN"


def _written(pagemap: int, address: int, *, arm: bool) -> list[tuple[int, int]]:
    """Return the written runs of two pages, and arm them if asked."""
    regions = (ctypes.c_uint64 * 6)()  # two struct page_region: start, end, categories
    # struct pm_scan_arg: size flags start end walk_end vec vec_len max_pages category_inverted
    # category_mask category_anyof_mask return_mask
    request = bytearray(
        struct.pack(
            "=12Q",
            96,
            _PM_SCAN_WP_MATCHING if arm else 0,
            address,
            address + 2 * _PAGE,
            0,
            ctypes.addressof(regions),
            2,
            0,
            0,
            _PAGE_IS_WRITTEN,
            _PAGE_IS_PRESENT,
            _PAGE_IS_WRITTEN,
        )
    )
    count = fcntl.ioctl(pagemap, _PAGEMAP_SCAN, request)
    return [(regions[3 * index], regions[3 * index + 1]) for index in range(count)]


def _soft_dirty() -> str:
    memory, address = _two_pages()
    Path("/proc/self/clear_refs").write_text("4")
    memory[_PAGE] = 2
    with Path("/proc/self/pagemap").open("rb", buffering=0) as file:
        file.seek(address // _PAGE * 8)
        clean, dirty = struct.unpack("=QQ", file.read(16))
    if clean & _PAGEMAP_SOFT_DIRTY or not dirty & _PAGEMAP_SOFT_DIRTY:
        # clear_refs takes the 4 without complaint on kernels that have no such bit.
        raise Failed("the soft-dirty bit does not follow writes")
    return "clear_refs and bit 55 of pagemap"


def _hidden_memory() -> str:
    if not reads_hidden_memory():
        raise Failed("memory made inaccessible cannot be read from outside")
    return "/proc/PID/mem reads memory made inaccessible"


def _two_pages() -> tuple[mmap.mmap, int]:
    memory = mmap.mmap(-1, 2 * _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[0] = memory[_PAGE] = 1
    return memory, ctypes.addressof(ctypes.c_char.from_buffer(memory))


TRIALS = (
    Trial(
        "write_protect",
        _write_protect,
        "use Linux 6.7 or newer with CONFIG_USERFAULTFD and CONFIG_PTE_MARKER_UFFD_WP",
    ),
    Trial(
        "soft_dirty",
        _soft_dirty,
        "not needed with write_protect; else a kernel with CONFIG_MEM_SOFT_DIRTY (x86-64)",
    ),
    Trial(
        "hidden_memory",
        _hidden_memory,
        "not needed with write_protect; else boot with proc_mem.force_override=always, or each dump of a task that has"
        " made memory inaccessible takes all of its memory",
    ),
)
