"""Whether memory that a process has made inaccessible can be read from outside.

/proc/PID/mem reads it as a debugger would. Kernels since Linux 6.12 can be built or booted to allow that only to who
traces the process, or to nobody (CONFIG_PROC_MEM_FORCE_PTRACE, proc_mem.force_override=), whatever the reader may else.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
from pathlib import Path

from snaplib.kernel.syscalls import libc_function

__all__ = ["reads_hidden_memory"]


@functools.cache
def reads_hidden_memory() -> bool:
    """Return whether it can, by trying it on a page of our own: we do not trace ourselves either."""
    memory = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[0] = 1
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = libc_function("mprotect", ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    protect(address, mmap.PAGESIZE, 0)
    try:
        with Path("/proc/self/mem").open("rb", buffering=0) as file:
            return os.pread(file.fileno(), 1, address) == b"\1"
    except OSError:
        return False
    finally:
        protect(address, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE)
