"""Encrypted objects being written and read from front to back.

They are cut into chunks of 1 MiB, each a piece; the place says its number and whether it is the last, so nothing can be
left out, exchanged or cut off.
"""

from __future__ import annotations

import struct
import threading
from typing import TYPE_CHECKING

from snaplib.store.sealed.seal import SEAL_BYTES

if TYPE_CHECKING:
    from snaplib.store.backend import Data, ObjectReader, ObjectWriter
    from snaplib.store.sealed.seal import ObjectSeal

__all__ = [
    "CHUNK_BYTES",
    "SealedReader",
    "SealedWriter",
    "open_whole",
    "seal_whole",
]

CHUNK_BYTES = 1 << 20
_CHUNK = struct.Struct("<5sQ?")


def _chunk_place(number: int, *, last: bool) -> bytes:
    return _CHUNK.pack(b"chunk", number, last)


def seal_whole(seal: ObjectSeal, data: bytes) -> bytes:
    """Return an object as it is stored, at once."""
    last = max(0, len(data) - 1) // CHUNK_BYTES
    return b"".join(
        seal.close(
            data[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES],
            _chunk_place(number, last=number == last),
        )
        for number in range(last + 1)
    )


def open_whole(seal: ObjectSeal, stored: bytes) -> bytes:
    """Return the content of a stored object, at once.

    Raises:
        SnapshotDamaged: It is not what was encrypted.
    """
    step = CHUNK_BYTES + SEAL_BYTES
    last = max(0, len(stored) - 1) // step
    view = memoryview(stored)
    return b"".join(
        seal.open(
            view[number * step : (number + 1) * step], _chunk_place(number, last=number == last)
        )
        for number in range(last + 1)
    )


class SealedWriter:
    """An object being encrypted and written from front to back.

    Args:
        writer: What writes.
        seal: What encrypts.
    """

    def __init__(self, writer: ObjectWriter, seal: ObjectSeal) -> None:
        self._writer = writer
        self._seal = seal
        self._lock = threading.Lock()
        self._chunk = bytearray()
        self._number = 0
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        """How many bytes have been appended."""
        return self._size_bytes

    def append(self, data: Data) -> int:
        """Append bytes and return the offset they are at."""
        view = memoryview(data).cast("B")
        with self._lock:
            offset = self._size_bytes
            self._size_bytes += len(view)
            while view:
                if len(self._chunk) == CHUNK_BYTES:
                    self._put(last=False)
                room = CHUNK_BYTES - len(self._chunk)
                self._chunk += view[:room]
                view = view[room:]
        return offset

    def _put(self, *, last: bool) -> None:
        place = _chunk_place(self._number, last=last)
        self._writer.append(self._seal.close(self._chunk, place))
        self._number += 1
        self._chunk = bytearray()

    def commit(self) -> None:
        """Write the last chunk, make all durable, and close."""
        with self._lock:
            self._put(last=True)
        self._writer.commit()

    def abort(self) -> None:
        """Close and forget the object."""
        self._writer.abort()


class SealedReader:
    """Reads what `SealedWriter` wrote; any thread may read.

    Args:
        reader: What reads; closed with this.
        seal: What decrypts.
    """

    #: Nothing of an encrypted chunk shows.
    seal_bytes = 0

    def __init__(self, reader: ObjectReader, seal: ObjectSeal) -> None:
        self._reader = reader
        self._seal = seal
        step = CHUNK_BYTES + SEAL_BYTES
        self._last = max(0, reader.size_bytes - 1) // step
        self._lock = threading.Lock()
        self._number = -1
        self._chunk = b""

    @property
    def size_bytes(self) -> int:
        """The size of the content."""
        return max(0, self._reader.size_bytes - (self._last + 1) * SEAL_BYTES)

    def read(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes from ``offset``, fewer only where the content ends before."""
        size = max(0, min(size, self.size_bytes - offset))
        if not size and self.size_bytes:
            return b""
        parts = []
        with self._lock:
            for number in range(
                offset // CHUNK_BYTES, max(0, offset + size - 1) // CHUNK_BYTES + 1
            ):
                self._load(number)
                begin = max(0, offset - number * CHUNK_BYTES)
                parts.append(self._chunk[begin : offset + size - number * CHUNK_BYTES])
        return b"".join(parts)

    def _load(self, number: int) -> None:
        if number != self._number:
            step = CHUNK_BYTES + SEAL_BYTES
            stored = self._reader.read(number * step, step)
            self._chunk = self._seal.open(stored, _chunk_place(number, last=number == self._last))
            self._number = number

    def read_into(self, offset: int, room: memoryview, size: int) -> int:
        """Read ``size`` bytes and return how many there are: fewer only where the content ends."""
        data = self.read(offset, size)
        room[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the object."""
        self._reader.close()
