"""Advice on memory: of other processes, and of this one."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import mmap
from typing import TYPE_CHECKING

from snaplib.kernel.syscalls import libc_function

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["collapse_huge", "has_droppable_memory", "trim_heap"]

_MAP_DROPPABLE = 8  # linux/mman.h
_MADV_COLLAPSE = 25  # asm-generic/mman-common.h


class _IoVec(ctypes.Structure):
    """struct iovec of sys/uio.h."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


@functools.cache
def _process_madvise() -> Callable[..., int]:
    try:
        return libc_function(
            "process_madvise",
            ctypes.c_int,
            ctypes.POINTER(_IoVec),
            ctypes.c_size_t,
            ctypes.c_int,
            ctypes.c_uint,
            restype=ctypes.c_ssize_t,
        )
    except AttributeError:
        raise OSError(errno.ENOSYS, "this C library has no process_madvise") from None


def collapse_huge(pidfd: int, ranges: Sequence[tuple[int, int]]) -> None:
    """Ask the kernel to back ranges by transparent huge pages again (process_madvise(2)).

    Advice: ranges that are gone or cannot be collapsed are left as they are. MADV_COLLAPSE is
    Linux commit 876b4a189650 (in v6.1).

    Args:
        pidfd: Of the process.
        ranges: First address and the one after the last; at most 1024.

    Raises:
        OSError: The process is gone or not ours, the kernel does not know the advice (EINVAL), or
            some range could not be collapsed; the others were.
    """
    failure = None
    done = 0
    while done < len(ranges):
        rest = ranges[done:]
        vectors = (_IoVec * len(rest))(*(_IoVec(start, end - start) for start, end in rest))
        try:
            advised_bytes = _process_madvise()(pidfd, vectors, len(rest), _MADV_COLLAPSE, 0)
        except OSError as error:
            failure, advised_bytes = error, 0
            if isinstance(error, ProcessLookupError):
                break
        # The call stops at the first range it cannot do: go on behind it.
        while done < len(ranges) and advised_bytes >= ranges[done][1] - ranges[done][0]:
            advised_bytes -= ranges[done][1] - ranges[done][0]
            done += 1
        done += 1
    if failure is not None:
        raise failure


@functools.cache
def has_droppable_memory() -> bool:
    """Return whether this kernel has MAP_DROPPABLE of mmap(2), by trying (Linux commit 9651fcedf7b9, in v6.11)."""
    try:
        mmap.mmap(-1, mmap.PAGESIZE, flags=_MAP_DROPPABLE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        return False
    return True


def trim_heap() -> None:
    """Give freed memory of this process back to the kernel (malloc_trim(3)), where the C library can."""
    with contextlib.suppress(AttributeError):
        libc_function("malloc_trim", ctypes.c_size_t)(0)
