"""The files that a local store's objects are."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING

from snaplib.store.bulk import BLOCK_BYTES, BulkFile
from snaplib.store.durable import sync_dir, translated, write_all

if TYPE_CHECKING:
    from pathlib import Path

    from snaplib.store.backend import Data
    from snaplib.store.throughput import Meter

__all__ = ["LocalObjectReader", "LocalObjectWriter"]


class LocalObjectWriter:
    """A file being written from several threads.

    Args:
        path: Its path.
        fd: A descriptor open for writing, which is ours from now on.
        meter: What measures.
        bulk: Whether to write past the page cache.
    """

    def __init__(self, path: Path, fd: int, meter: Meter, *, bulk: bool = False) -> None:
        self._path = path
        self._meter = meter
        self._fd = fd
        self._bulk = BulkFile(fd) if bulk else None
        self._lock = threading.Lock()
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        """How many bytes have been appended."""
        return self._size_bytes

    def append(self, data: Data) -> int:
        """Append bytes and return the offset they are at."""
        with self._lock:
            offset = self._size_bytes
            self._size_bytes += len(data)
            if self._bulk is not None:
                self._size_bytes += -self._size_bytes % BLOCK_BYTES
        with translated(self._path), self._meter.sending(len(data)):
            if self._bulk is not None:
                self._bulk.write(data, offset)
            else:
                write_all(self._fd, data, offset)
        return offset

    def commit(self) -> None:
        """Make everything appended durable, and close."""
        with translated(self._path):
            try:
                os.fsync(self._fd)
            finally:
                self._close()
            sync_dir(self._path.parent)

    def abort(self) -> None:
        """Close and remove the file."""
        self._close()
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class LocalObjectReader:
    """A file open for reading.

    Args:
        path: Its path.
        meter: What measures.
        bulk: Whether to read past the page cache with `read_into`.
    """

    #: Nothing is added to what is written.
    seal_bytes = 0

    def __init__(self, path: Path, meter: Meter, *, bulk: bool = False) -> None:
        self._path = path
        self._meter = meter
        self._fd = os.open(path, os.O_RDONLY)
        self._bulk_fd = os.open(path, os.O_RDONLY) if bulk else -1
        self._bulk = BulkFile(self._bulk_fd) if bulk else None
        self._size_bytes = os.fstat(self._fd).st_size

    @property
    def size_bytes(self) -> int:
        """The file's size when it was opened."""
        return self._size_bytes

    def read(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes from ``offset``, fewer only where the file ends before."""
        # No mmap: with it a bad block, or a file cut short meanwhile, is a SIGBUS instead of an
        # error.
        with translated(self._path, reading=True):
            data = os.pread(self._fd, size, offset)
            if len(data) == size:
                return data
            parts = [data]
            while data and (missing := size - sum(map(len, parts))):
                data = os.pread(self._fd, missing, offset + size - missing)
                parts.append(data)
            return b"".join(parts)

    def read_into(self, offset: int, room: memoryview, size: int) -> int:
        """Read ``size`` bytes and return how many there are: fewer only where the file ends."""
        if self._bulk is not None and offset % BLOCK_BYTES == 0:
            with translated(self._path, reading=True), self._meter.receiving(size):
                return self._bulk.read_into(room, offset, size)
        data = self.read(offset, size)
        room[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the file; may be called again."""
        self._bulk = None
        for fd in (self._fd, self._bulk_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._bulk_fd = -1
