"""What kernels do differently and the code has to know: each test fails on some kernel if it does not."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
from pathlib import Path

import numpy as np
import pytest

from snaplib.kernel import ProcFs
from snaplib.kernel.hidden import reads_hidden_memory
from snaplib.kernel.pagemap import Category, Pagemap
from snaplib.observe.descriptors import DescriptorKind, kind_of
from snaplib.observe.memory import memory_of
from snaplib.store.bulk import buffers
from snaplib.task import Task
from snaplib.track import Basis, CannotTrack, SoftDirty, WriteProtect, open_tracker
from snaplib.track.areas import areas_of

PAGE = mmap.PAGESIZE
HUGE = 2 << 20

PAGES = 64
WRITTEN = {5, 6, 7, 11, 30, 31, 47}
VERSION = tuple(int(part) for part in platform.release().split(".")[:2])


def write(victim, word: str, address: int) -> None:
    for page in sorted(WRITTEN):
        victim(word, address, page, 1)


@pytest.fixture
def tracked(victim):
    """The task of a program, the address of memory of its that holds pages."""
    address = victim("map", "anon", PAGES)
    victim("store", address, 0, PAGES)
    with Task.attach(victim.pid) as task:
        yield task, address


def test_dirty_pages_are_found_by_the_best_there_is(tracked):
    # PAGEMAP_SCAN and UFFD_FEATURE_WP_ASYNC are of v6.7.
    task, _ = tracked
    with open_tracker(task) as tracker:
        if VERSION >= (6, 7):
            assert tracker.basis is Basis.WRITE_PROTECT
        else:
            assert tracker.basis is Basis.SOFT_DIRTY
            assert "no PAGEMAP_SCAN" in tracker.reasons[0]
            with pytest.raises(CannotTrack, match="no PAGEMAP_SCAN"):
                WriteProtect(task)


@pytest.mark.require("write_protect", "soft_dirty")
def test_both_ways_to_find_dirty_pages_agree(victim, dirty, tracked):
    task, address = tracked
    slow = {"freeze_deadline_s": 30.0}
    with WriteProtect(task, **slow) as first, SoftDirty(task, **slow) as second:
        first.arm()
        second.arm()
        for word in ("store", "read", "remote"):
            write(victim, word, address)
            assert dirty(first.scan(), victim.pid, address, PAGES) == WRITTEN, word
            assert dirty(second.scan(), victim.pid, address, PAGES) == WRITTEN, word


def test_pages_are_told_apart_without_the_ioctl_too():
    memory = mmap.mmap(-1, PAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    for page in WRITTEN:
        memory[page * PAGE] = 1
    with Pagemap("/proc/self/pagemap") as pagemap:
        found = pagemap.scan(
            address, address + PAGES * PAGE, any_of=Category.PRESENT | Category.SWAPPED
        )
    told = {
        page
        for start, end, _ in found.tolist()
        for page in range((start - address) // PAGE, (end - address) // PAGE)
    }
    assert told == WRITTEN


def test_memory_made_inaccessible_is_read_or_known_to_be_hidden(victim):
    # Debian builds its newest with CONFIG_PROC_MEM_NO_FORCE or the like, which came with v6.12.
    address = victim("map", "anon", PAGES)
    victim("store", address, 0, PAGES)
    libc = ctypes.CDLL(None, use_errno=True)
    memory = mmap.mmap(-1, PAGE, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    memory[0] = 1
    hidden = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    child = os.fork()
    if child == 0:
        libc.mprotect(ctypes.c_void_p(hidden), ctypes.c_size_t(PAGE), 0)
        os.kill(os.getpid(), 19)
        os._exit(0)
    try:
        os.waitpid(child, os.WUNTRACED)
        with Path(f"/proc/{child}/mem").open("rb", buffering=0) as file:
            try:
                readable = os.pread(file.fileno(), 1, hidden) == b"\1"
            except OSError:
                readable = False
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert reads_hidden_memory() == readable
    assert readable or VERSION >= (6, 12)


def test_a_pidfd_is_one_whatever_it_is_called():
    descriptor = os.pidfd_open(os.getpid())
    try:
        name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        assert kind_of(os.fstat(descriptor).st_mode, name) is DescriptorKind.PIDFD
    finally:
        os.close(descriptor)


def test_large_buffers_begin_at_a_huge_page():
    # Before v6.7 the kernel puts large mappings anywhere.
    kept = []
    for pages in (1, 3, 5, 7, 9):
        kept.append(mmap.mmap(-1, 23 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        kept.append(buffers(2, pages * HUGE))
        for view in kept[-1]:
            assert np.frombuffer(view, np.uint8).ctypes.data % HUGE == 0


def test_what_the_kernel_puts_into_every_process_is_counted_once_and_not_watched():
    # Newer kernels count the vdso as resident; since v6.13 there is a mapping more of the clock's.
    procfs = ProcFs()
    mappings = procfs.smaps(os.getpid())
    names = {one.path for one in mappings}
    assert ("[vvar_vclock]" in names) == (VERSION >= (6, 13))
    (vdso,) = (one for one in mappings if one.path == "[vdso]")
    memory, _ = memory_of(mappings)
    assert memory.kernel_bytes == vdso.size_bytes
    without, _ = memory_of(one for one in mappings if not one.path.startswith("[v"))
    assert memory.dumpable_bytes - without.dumpable_bytes == vdso.size_bytes
    assert memory.resident_bytes - without.resident_bytes == vdso.size_bytes
    made = {one.start for one in mappings if one.path.startswith("[v")}
    assert not made & {area.start for area in areas_of(mappings)}
