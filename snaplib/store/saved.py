"""Reading one snapshot."""

from __future__ import annotations

import contextlib
import io
import tempfile
from typing import IO, TYPE_CHECKING, Self

from snaplib.errors import SnapshotDamaged
from snaplib.store import archive, names
from snaplib.store.blocks import Blocks, blocks_from_bytes
from snaplib.store.frames import LOCAL_THREADS, REMOTE_THREADS
from snaplib.store.index_format import index_from_bytes
from snaplib.store.manifest import StoredObject
from snaplib.store.objectio import ObjectStream
from snaplib.store.presence import present
from snaplib.store.reader import PageLogReader

if TYPE_CHECKING:
    from pathlib import Path

    from snaplib.store.backend import Backend
    from snaplib.store.manifest import Snapshot

__all__ = ["SnapshotReader"]

_BUFFER_BYTES = 1 << 20


class SnapshotReader:
    """Reads a snapshot; `close` it, or use it as a context manager.

    Args:
        backend: Where it is.
        snapshot: Which.

    Attributes:
        snapshot: Which.
    """

    def __init__(self, backend: Backend, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._backend = backend
        self._pages: PageLogReader | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open; may be called again."""
        if self._pages is not None:
            self._pages.close()

    @property
    def pages(self) -> PageLogReader:
        """The snapshot's pages; the index is read, and checked, at first use.

        Raises:
            SnapshotDamaged: The index is not what was written.
        """
        if self._pages is None:
            where = self._where(names.INDEX)
            try:
                index = index_from_bytes(self._whole(names.INDEX), self.snapshot.pages)
            except ValueError as error:
                raise SnapshotDamaged(f"{where}: {error}") from error
            if problems := index.problems():
                raise SnapshotDamaged(f"{where}: {problems[0]}")
            self._pages = PageLogReader(
                index,
                lambda number: self._backend.open(self._segment(number), bulk=True),
                self._segment,
                LOCAL_THREADS if self._backend.local else REMOTE_THREADS,
            )
        return self._pages

    def blocks(self) -> Blocks:
        """Return what of the snapshot's pages is known by its content; their places are by frame of its index.

        Raises:
            SnapshotDamaged: It is not what was written, or not there.
            StoreTooNew: A newer snaplib wrote it.
        """
        starts = self.pages.index.starts
        try:
            return blocks_from_bytes(self._whole(names.BLOCKS), starts)
        except ValueError as error:
            raise SnapshotDamaged(f"{self._where(names.BLOCKS)}: {error}") from error

    def segments_present(self) -> list[bool]:
        """Return of each segment that the manifest names whether it is there, with all its bytes; they are not read."""
        return present(self._backend, self.snapshot.segments)

    def _whole(self, name: str) -> bytes:
        """Return a small object, checked."""
        with self._stream(name) as stream:
            data = stream.read()
            self._check(name, stream)
        return data

    def extract_directory(self, folder: Path, most_bytes: int = archive.MOST_BYTES) -> int:
        """Write the files of `SnapshotWriter.put_directory` into a folder.

        Args:
            folder: An existing, empty folder.
            most_bytes: How many bytes the files may have together.

        Returns:
            How many files, folders and links there were.

        Raises:
            ArchiveTooLarge: They have more.
            SnapshotDamaged: They are not what was written.
        """
        stream = self._stream(names.IMAGES)
        with io.BufferedReader(stream, _BUFFER_BYTES) as source:
            try:
                count = archive.unpack(source, folder, most_bytes)
            except archive.ArchiveTooLarge:
                raise
            except ValueError as error:
                raise SnapshotDamaged(f"{self._where(names.IMAGES)}: {error}") from error
        self._check(names.IMAGES, stream)
        return count

    def open_stream(self, *streams: str) -> IO[bytes]:
        """Return what `SnapshotWriter.put_stream` stored, checked, as a file open for reading.

        Args:
            streams: The object's name, or `Borrowed.reference`; of several, one behind the other.

        Raises:
            SnapshotDamaged: It is not what was written.
        """
        with contextlib.ExitStack() as on_error:
            copy = on_error.enter_context(tempfile.SpooledTemporaryFile(_BUFFER_BYTES))
            for name in streams:
                with self._stream(name) as stream:
                    while data := stream.read(_BUFFER_BYTES):
                        copy.write(data)
                    self._check(name, stream)
            on_error.pop_all()
        copy.seek(0)
        return copy

    def _segment(self, number: int) -> str:
        """Return the full name of a segment, given its number in the index."""
        try:
            segment = self.snapshot.segments[number]
        except IndexError:
            raise SnapshotDamaged(
                f"{self._where(names.INDEX)}: there is no segment {number} in the manifest"
            ) from None
        return names.object_name(segment.owner, segment.name)

    def _where(self, name: str) -> str:
        owner, _, own = name.rpartition("/")
        return names.object_name(owner or self.snapshot.id, own)

    def _stream(self, name: str) -> ObjectStream:
        if "/" in name and self._expected(name) is None:
            raise SnapshotDamaged(f"{self._where(name)} is not named by the manifest")
        try:
            return ObjectStream(self._backend.open(self._where(name)))
        except FileNotFoundError as error:
            raise SnapshotDamaged(f"{self._where(name)} is missing") from error

    def _check(self, name: str, stream: ObjectStream) -> None:
        if self._expected(name) != stream.stored():
            raise SnapshotDamaged(
                f"{self._where(name)}: its size or hash is not that of the manifest"
            )

    def _expected(self, name: str) -> StoredObject | None:
        """Return what the manifest says of an object, its own or a borrowed one."""
        for one in self.snapshot.borrowed:
            if one.reference == name:
                return StoredObject(one.size_bytes, one.blake3)
        return self.snapshot.objects.get(name)
