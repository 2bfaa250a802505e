"""What statfs(2) tells and Python's ``os.statvfs`` leaves out: the type of a file system."""

from __future__ import annotations

import ctypes
import os

from snaplib.kernel.syscalls import libc_function

__all__ = ["HUGETLBFS_MAGIC", "MQUEUE_MAGIC", "SECRETMEM_MAGIC", "file_system_magic"]

#: linux/magic.h, and ipc/mqueue.c, which keeps its own.
HUGETLBFS_MAGIC = 0x958458F6
SECRETMEM_MAGIC = 0x5345434D
MQUEUE_MAGIC = 0x19800202

#: struct statfs is 120 bytes on 64-bit Linux and begins with f_type, a long.
_STATFS_BYTES = 256

_statfs = libc_function("statfs", ctypes.c_char_p, ctypes.c_void_p)


def file_system_magic(path: str) -> int:
    """Return the magic number of the file system of a file (linux/magic.h).

    Args:
        path: The file; ``/proc/PID/fd/FD`` asks after an open one.

    Raises:
        OSError: It is not there, or not for us to look at.
    """
    answer = ctypes.create_string_buffer(_STATFS_BYTES)
    _statfs(os.fsencode(path), answer)
    magic = ctypes.c_long.from_buffer(answer).value
    return magic & 0xFFFFFFFF
