"""The consuming end of a BPF ring buffer.

The layout is that of the kernel's Documentation/bpf/ringbuf.rst: a page with our position, a page with
the producers', and the data. The kernel would map the data twice in a row, so that no record is ever split;
but all that is mapped counts as ours, so it is here once.
"""

from __future__ import annotations

import mmap
import struct

__all__ = ["RingBuffer"]

_HEADER_BYTES = 8
_BUSY = 1 << 31
_DISCARDED = 1 << 30
_PAGE_BYTES = mmap.PAGESIZE


class RingBuffer:
    """Reads the records that programs put into a ring buffer map.

    Args:
        descriptor: Of the map; it is not kept.
        size_bytes: Of the map's data.
    """

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        self._size = size_bytes
        self._ours = mmap.mmap(descriptor, _PAGE_BYTES, mmap.MAP_SHARED)
        # Only our own page may be written to.
        self._data = mmap.mmap(
            descriptor,
            _PAGE_BYTES + size_bytes,
            mmap.MAP_SHARED,
            mmap.PROT_READ,
            offset=_PAGE_BYTES,
        )
        (self._position,) = struct.unpack_from("<Q", self._ours, 0)

    def drain(self) -> list[bytes]:
        """Return the records that are there, the oldest first, and make room for new ones."""
        # Aligned 8-byte loads, which x86-64 and arm64 do at once. Only one thread consumes.
        (end,) = struct.unpack_from("<Q", self._data, 0)
        found = []
        position = self._position
        while position < end:
            at = _PAGE_BYTES + position % self._size
            (length,) = struct.unpack_from("<I", self._data, at)
            if length & _BUSY:
                break  # a program is writing it: next time
            count = length & ~(_BUSY | _DISCARDED)
            if not length & _DISCARDED:
                found.append(self._bytes(position + _HEADER_BYTES, count))
            position += (_HEADER_BYTES + count + 7) & ~7
        self._position = position
        struct.pack_into("<Q", self._ours, 0, position)
        return found

    def _bytes(self, position: int, count: int) -> bytes:
        at = position % self._size
        first = self._data[_PAGE_BYTES + at : _PAGE_BYTES + min(at + count, self._size)]
        return first + self._data[_PAGE_BYTES : _PAGE_BYTES + count - len(first)]

    def close(self) -> None:
        """Unmap it."""
        self._ours.close()
        self._data.close()
