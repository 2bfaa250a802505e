"""Memory that a process misses and gets from somebody else when it touches it: userfaultfd(2).

Whoever made the process has registered its mappings for missing pages, asked for events, and passed the descriptor on.
While an event waits to be read, the process waits with what it was about to change, and nothing can be put into it
(EAGAIN).  Structures and numbers are those of linux/userfaultfd.h.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct

import attrs

from snaplib.kernel.syscalls import libc_function

__all__ = ["Event", "Fault", "Forked", "MissingMemory", "Moved", "Removed", "Unmapped"]

_UFFDIO_UNREGISTER = 0x8010AA01
_UFFDIO_WAKE = 0x8010AA02
_UFFDIO_COPY = 0xC028AA03
_UFFDIO_ZEROPAGE = 0xC020AA04

#: struct uffd_msg: the event, and three words whose meaning depends on it.
_MESSAGE = struct.Struct("=B7xQQQ")
_MOST_MESSAGES = 64
_FAULT, _FORK, _REMAP, _REMOVE, _UNMAP = range(0x12, 0x17)

_ioctl = libc_function("ioctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)


class _Copy(ctypes.Structure):
    """struct uffdio_copy."""

    _fields_ = (
        ("target", ctypes.c_uint64),
        ("source", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("done", ctypes.c_int64),
    )


class _Zero(ctypes.Structure):
    """struct uffdio_zeropage."""

    _fields_ = (
        ("begin", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("done", ctypes.c_int64),
    )


class _Range(ctypes.Structure):
    """struct uffdio_range."""

    _fields_ = (("begin", ctypes.c_uint64), ("size", ctypes.c_uint64))


@attrs.frozen
class Fault:
    """A thread waits for the page at ``address``."""

    address: int


@attrs.frozen
class Forked:
    """There is a copy of the process, which misses what this one misses: ``memory``, the reader's to close."""

    memory: MissingMemory


@attrs.frozen
class Moved:
    """``size`` bytes that were at ``begin`` are at ``to`` now (mremap)."""

    begin: int
    to: int
    size: int


@attrs.frozen
class Removed:
    """What was in a range is not wanted any more; it will read as zeros (madvise)."""

    begin: int
    end: int


@attrs.frozen
class Unmapped:
    """A range is no memory any more (munmap)."""

    begin: int
    end: int


Event = Fault | Forked | Moved | Removed | Unmapped


class MissingMemory:
    """One address space, whose missing memory is ours to bring; what is missing still when it is closed reads as zeros.

    Any thread may call anything but `close`.

    Args:
        descriptor: Of a userfaultfd that does not block; this object closes it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        """Return the descriptor: it can be read when there are events."""
        return self._descriptor

    def events(self) -> list[Event]:
        """Return what has happened, in order, as far as it is known; the process goes on with it."""
        try:
            data = os.read(self._descriptor, _MOST_MESSAGES * _MESSAGE.size)
        except BlockingIOError:
            return []
        return [_event(*message) for message in _MESSAGE.iter_unpack(data)]

    def copy(self, source: int, address: int, size: int) -> int:
        """Put pages where there are none, and wake who waits for them.

        Args:
            source: The address of the bytes in this process.
            address: Where they go, a multiple of the page size.
            size: How many, whole pages.

        Returns:
            For how many bytes that was done before something was in the way.

        Raises:
            OSError: Nothing was done: EEXIST: there is a page; EAGAIN: an event must be read first; ENOENT: this is not
                all in one mapping whose missing pages are ours; ESRCH: the process is gone; ENOMEM: no memory.
        """
        request = _Copy(address, source, size, 0, 0)
        try:
            _ioctl(self._descriptor, _UFFDIO_COPY, ctypes.byref(request))
        except OSError:
            if request.done <= 0:
                raise
        return int(request.done)

    def zero(self, address: int, size: int) -> int:
        """Put pages of zeros where there are none, and wake who waits for them; see `copy`."""
        request = _Zero(address, size, 0, 0)
        try:
            _ioctl(self._descriptor, _UFFDIO_ZEROPAGE, ctypes.byref(request))
        except OSError:
            if request.done <= 0:
                raise
        return int(request.done)

    def wake(self, address: int, size: int) -> None:
        """Have whoever waits for a page in a range look again."""
        _ioctl(self._descriptor, _UFFDIO_WAKE, ctypes.byref(_Range(address, size)))

    def let_go(self, begin: int, end: int) -> None:
        """Leave the pages that are missing in a range to the kernel, which gives zeros.

        Raises:
            OSError: EINVAL, ENOMEM: the range is not, or not only, ours.
        """
        _ioctl(self._descriptor, _UFFDIO_UNREGISTER, ctypes.byref(_Range(begin, end - begin)))

    def close(self) -> None:
        """Let go of all of it; may be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _event(kind: int, first: int, second: int, third: int) -> Event:
    if kind == _FAULT:
        return Fault(second & -mmap.PAGESIZE)
    if kind == _FORK:
        return Forked(MissingMemory(first & 0xFFFFFFFF))
    if kind == _REMAP:
        return Moved(first, second, third)
    if kind == _REMOVE:
        return Removed(first, second)
    if kind == _UNMAP:
        return Unmapped(first, second)
    raise ValueError(f"userfaultfd event {kind:#x} is not known")
