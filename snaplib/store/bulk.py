"""Large files written and read past the page cache.

A task's memory fills the machine that it is saved on: the page cache has no room for a second copy
of it, and filling the cache costs more CPU than compressing.  Direct I/O needs neither, and what it
has written needs hardly any fsync.  In return everything lies at multiples of a block.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import threading
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from snaplib.store.backend import Data

__all__ = ["BLOCK_BYTES", "BulkFile", "buffers"]

#: What direct I/O wants offsets, sizes and addresses to be multiples of; 4096 satisfies every disk.
BLOCK_BYTES = 4096
_HUGE_BYTES = 2 << 20
#: What a thread copies to where direct I/O can write it from: one for all files, of which there are many in time.
_scratch = threading.local()


class BulkFile:
    """A file used by several threads, each piece at a multiple of `BLOCK_BYTES`.

    File systems that know no direct I/O get ordinary reads and writes of the same form.

    Args:
        fd: A descriptor, which stays the caller's.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        try:
            fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise

    def write(self, data: Data, offset: int) -> None:
        """Write bytes, and zeros up to the next multiple of a block.

        Args:
            data: The bytes.
            offset: Where; a multiple of a block.

        Raises:
            OSError: They could not be written.
        """
        view = memoryview(data)
        if len(view) % BLOCK_BYTES or _address(view) % BLOCK_BYTES:
            view = self._aligned(view)
        while view:
            try:
                written = os.pwrite(self._fd, view, offset)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._clear_direct():
                    raise
                # Some file systems take the flag and refuse the write.
                continue
            view = view[written:]
            offset += written
            if written % BLOCK_BYTES:
                self._clear_direct()

    def read_into(self, room: memoryview, offset: int, size: int) -> int:
        """Read bytes; if they are not aligned, more than were asked for may be read.

        Args:
            room: Where to; its address and length are multiples of a block.
            offset: From where; a multiple of a block.
            size: How many bytes, at most the room's.

        Returns:
            How many of the bytes are there: fewer only where the file ends.

        Raises:
            OSError: They could not be read.
        """
        target = room[: -(-size // BLOCK_BYTES) * BLOCK_BYTES]
        done = 0
        while done < size:
            try:
                count = os.preadv(self._fd, [target[done:]], offset + done)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._clear_direct():
                    raise
                continue
            if not count:
                break
            done += count
            if done % BLOCK_BYTES:
                self._clear_direct()
        return min(done, size)

    def _aligned(self, view: memoryview) -> memoryview:
        """Return the same bytes at an aligned address and padded, in memory of this thread."""
        padded = -(-len(view) // BLOCK_BYTES) * BLOCK_BYTES
        scratch: memoryview | None = getattr(_scratch, "room", None)
        if scratch is None or len(scratch) < padded:
            (scratch,) = buffers(1, -(-padded // _HUGE_BYTES) * _HUGE_BYTES)
            _scratch.room = scratch
        room = scratch[:padded]
        room[: len(view)] = view
        room[len(view) :] = bytes(padded - len(view))
        return room

    def _clear_direct(self) -> bool:
        """Go on with ordinary writes; false if they were that already."""
        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        fcntl.fcntl(self._fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        return bool(flags & os.O_DIRECT)


def buffers(count: int, size: int) -> list[memoryview]:
    """Return new buffers that direct I/O can use as they are.

    Args:
        count: How many.
        size: The size of each; a multiple of a block.
    """
    # Private, because a fork must not see it change.
    spare = _HUGE_BYTES if count * size >= _HUGE_BYTES else 0
    memory = mmap.mmap(-1, count * size + spare, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):
        # A disk takes what lies in a few huge pages several times as fast as hundreds of small ones.
        memory.madvise(mmap.MADV_HUGEPAGE)
    arena = memoryview(memory)
    if spare:
        # Kernels before 6.7 put mappings anywhere, and then their ends are of small pages.
        arena = arena[-_address(arena) % _HUGE_BYTES :]
    return [arena[at : at + size] for at in range(0, count * size, size)]


def _address(view: memoryview) -> int:
    return np.frombuffer(view, np.uint8).ctypes.data
