"""Objects as Python files: what tarfile, zstd and shutil read from and write to."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import blake3

from snaplib.store.manifest import StoredObject

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from snaplib.store.backend import ObjectReader, ObjectWriter

__all__ = ["HashingWriter", "ObjectStream"]

_PIECE_BYTES = 4 << 20


class HashingWriter(io.RawIOBase):
    """Writes an object from front to back and hashes it on the way.

    Args:
        writer: The object; committing or aborting it is the caller's.
    """

    def __init__(self, writer: ObjectWriter) -> None:
        self._writer = writer
        self._hash = blake3.blake3()

    def writable(self) -> bool:
        """Tell that it can be written to."""
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Append bytes."""
        view = memoryview(data).cast("B")
        self._writer.append(view)
        self._hash.update(view)
        return len(view)

    def stored(self) -> StoredObject:
        """Return size and hash of what has been written."""
        return StoredObject(self._writer.size_bytes, self._hash.hexdigest())


class ObjectStream(io.RawIOBase):
    """Reads an object from front to back and hashes it on the way.

    Args:
        reader: The object, closed with the stream.
    """

    def __init__(self, reader: ObjectReader) -> None:
        self._reader = reader
        self._hash = blake3.blake3()
        self._offset = 0

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, room: WriteableBuffer, /) -> int:
        """Read the next bytes."""
        view = memoryview(room).cast("B")
        data = self._reader.read(self._offset, len(view))
        view[: len(data)] = data
        self._hash.update(data)
        self._offset += len(data)
        return len(data)

    def readall(self) -> bytes:
        """Read what is left, in few pieces: each may be a request over a network."""
        pieces = []
        while piece := self.read(_PIECE_BYTES):
            pieces.append(piece)
        return b"".join(pieces)

    def stored(self) -> StoredObject:
        """Return size and hash of what has been read."""
        return StoredObject(self._offset, self._hash.hexdigest())

    def close(self) -> None:
        """Close the object as well."""
        self._reader.close()
        super().close()
