"""What a session's init asks of the kernel: mounts of its own, open files compared, pipes copied.

Like `snaplib.kernel.syscalls`, on which it stands, it needs the standard library only: the init
runs without snaplib's dependencies.
"""

from __future__ import annotations

import ctypes
import os

from snaplib.kernel.syscalls import (
    KCMP_FILE,
    MS_REC,
    MS_SLAVE,
    kcmp,
    libc_function,
    mount,
)

__all__ = ["make_mounts_slave", "mount_proc", "same_open_file", "tee"]

# linux/mount.h
_MS_NOSUID = 2
_MS_NODEV = 4
_MS_NOEXEC = 8

_SPLICE_F_NONBLOCK = 2  # linux/splice.h

_tee = libc_function(
    "tee",
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_size_t,
    ctypes.c_uint,
    restype=ctypes.c_ssize_t,
)


def make_mounts_slave() -> None:
    """Stop mounts made here from showing outside, while those made outside still show here."""
    mount("none", "/", None, MS_REC | MS_SLAVE)


def mount_proc() -> None:
    """Mount a /proc of the caller's PID namespace."""
    mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)


def tee(source: int, sink: int, length_bytes: int) -> int:
    """Copy up to `length_bytes` from one pipe into another without taking them out; see tee(2).

    Returns:
        How many bytes; 0 when the source is empty or the sink full.
    """
    try:
        return _tee(source, sink, length_bytes, _SPLICE_F_NONBLOCK)
    except BlockingIOError:
        return 0


def same_open_file(first: int, second: int) -> bool:
    """Whether two descriptors of this process are one open file description.

    Where the kernel has no kcmp(2), descriptors count as different.
    """
    try:
        return kcmp(os.getpid(), os.getpid(), KCMP_FILE, first, second)
    except OSError:
        return False
