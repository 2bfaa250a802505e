"""What this process itself takes: for programs that run for days beside a task."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os

from snaplib.kernel.procfs import ProcFs
from snaplib.kernel.syscalls import libc_function

__all__ = ["release_code", "share_malloc_arena"]

_M_ARENA_MAX = -8  # glibc's malloc.h


def share_malloc_arena() -> None:
    """Have all threads allocate from one arena (mallopt(3), M_ARENA_MAX): a MB less for each thread.

    A thread's own keeps what was freed at its end, whatever `snaplib.kernel.memory.trim_heap` asks for. For programs
    whose threads allocate little and never at the same time, before they have any. Does nothing where the C library is
    not glibc.
    """
    with contextlib.suppress(AttributeError):
        libc_function("mallopt", ctypes.c_int, ctypes.c_int)(_M_ARENA_MAX, 1)


def release_code() -> None:
    """Let go of the code of programs and libraries that has been used so far.

    Much of it is for starting: importing, setting up, loading. What runs again comes back from the page
    cache, at a page fault for each stretch. How much that is in the first place, the page cache decides:
    of a library that was installed just now it maps far more than is used.

    Does nothing while a debugger is attached, whose breakpoints it would undo.
    """
    procfs = ProcFs()
    pid = os.getpid()
    if procfs.status(pid).tracer_pid:
        return
    madvise = libc_function("madvise", ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for one in procfs.maps(pid):
        # Never what may have been written to: relocated data is not executable, and no writable code is a file's.
        if one.perms == "r-xp" and one.path.startswith("/"):
            with contextlib.suppress(OSError):  # EINVAL: it is locked in memory
                madvise(one.start, one.end - one.start, mmap.MADV_DONTNEED)
