"""Encrypted objects of few and large pieces: each append is one, its place the offset; they are read as written."""

from __future__ import annotations

import struct
import threading
from typing import TYPE_CHECKING

from snaplib.errors import SnapshotDamaged
from snaplib.store.bulk import BLOCK_BYTES, buffers
from snaplib.store.sealed.seal import SEAL_BYTES

if TYPE_CHECKING:
    from snaplib.store.backend import Data, ObjectReader, ObjectWriter
    from snaplib.store.sealed.seal import ObjectSeal

__all__ = ["SealedBulkReader", "SealedBulkWriter"]

_FRAME = struct.Struct("<5sQ")


def _frame_place(offset: int) -> bytes:
    return _FRAME.pack(b"frame", offset)


class SealedBulkWriter:
    """An object of which each append is encrypted by itself; any thread may append.

    Args:
        writer: What writes.
        seal: What encrypts.
    """

    def __init__(self, writer: ObjectWriter, seal: ObjectSeal) -> None:
        self._writer = writer
        self._seal = seal
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """How many bytes are stored."""
        return self._writer.size_bytes

    def append(self, data: Data) -> int:
        """Append bytes and return the offset they are at."""
        # One at a time, because where a piece will be is encrypted with it.
        with self._lock:
            offset = self._writer.size_bytes
            found = self._writer.append(self._seal.close(data, _frame_place(offset)))
        assert found == offset
        return offset

    def commit(self) -> None:
        """Make everything appended durable, and close."""
        self._writer.commit()

    def abort(self) -> None:
        """Close and forget the object."""
        self._writer.abort()


class SealedBulkReader:
    """Reads what `SealedBulkWriter` wrote, by the same pieces; any thread may read.

    Args:
        reader: What reads; closed with this.
        seal: What decrypts.
    """

    #: How many bytes follow each piece that are not of it.
    seal_bytes = SEAL_BYTES

    def __init__(self, reader: ObjectReader, seal: ObjectSeal) -> None:
        self._reader = reader
        self._seal = seal
        self._local = threading.local()

    @property
    def size_bytes(self) -> int:
        """How many bytes are stored."""
        return self._reader.size_bytes

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes as they are stored: for looking at what lies between pieces."""
        return self._reader.read(offset, size)

    def read_into(self, offset: int, room: memoryview, size: int) -> int:
        """Read a piece of ``size`` bytes.

        Raises:
            SnapshotDamaged: It is not what was encrypted.
        """
        scratch = self._scratch(size + SEAL_BYTES)
        count = self._reader.read_into(offset, scratch, size + SEAL_BYTES)
        if count < size + SEAL_BYTES:
            return max(0, count - SEAL_BYTES)
        piece = self._seal.open(scratch[:count], _frame_place(offset))
        if len(piece) != size:
            raise SnapshotDamaged(f"a piece of {len(piece)} bytes instead of {size}")
        room[:size] = piece
        return size

    def _scratch(self, size: int) -> memoryview:
        """Memory of this thread to read into."""
        found: memoryview | None = getattr(self._local, "scratch", None)
        if found is None or len(found) < size:
            (found,) = buffers(1, -(-size // BLOCK_BYTES) * BLOCK_BYTES)
            self._local.scratch = found
        return found

    def close(self) -> None:
        """Close the object."""
        self._reader.close()
