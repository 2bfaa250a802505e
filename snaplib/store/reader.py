"""The page log's reader."""

from __future__ import annotations

import collections
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from snaplib.errors import SnapshotDamaged, UsageError
from snaplib.store import codec
from snaplib.store.index import ENTRY, HOLE, PAGE_BYTES, Index, Space

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from snaplib.store.backend import Data, ObjectReader

__all__ = ["PageLogReader"]

#: Frames decoded ahead of the one being written: enough for two threads, and a bound for the
#: memory.
_AHEAD = 4
_THREADS = 2


class PageLogReader:
    """Reads one page log; `close` it, or use it as a context manager.

    Args:
        index: Its index.
        open_segment: Opens a segment, given its number.
        name: How to name a segment in errors, given its number.
    """

    def __init__(
        self,
        index: Index,
        open_segment: Callable[[int], ObjectReader],
        name: Callable[[int], str] = str,
    ) -> None:
        self.index = index
        self._open_segment = open_segment
        self._name = name
        self._segments: dict[int, ObjectReader] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the segments; may be called again."""
        while self._segments:
            self._segments.popitem()[1].close()

    def spaces(self) -> list[Space]:
        """Return the spaces there are pages or holes of, in order."""
        return self.index.spaces()

    def entries(self, space: Space, *, coalesce: bool = False) -> npt.NDArray[np.void]:
        """Return a space's runs in the order of addresses, as they were declared.

        Args:
            space: The space.
            coalesce: Join neighbours with the same flags.

        Returns:
            ENTRY, shape (n,): ``vaddr`` in bytes, ``pages``, ``flags``; those of holes are among
            them.
        """
        runs = self.index.runs_of(space)
        entries = np.empty(len(runs), ENTRY)
        for name in ENTRY.names or ():
            entries[name] = runs[name]
        if coalesce and len(entries):
            ends = entries["vaddr"] + entries["pages"] * np.uint64(PAGE_BYTES)
            breaks = np.flatnonzero(
                (entries["vaddr"][1:] != ends[:-1])
                | (entries["flags"][1:] != entries["flags"][:-1])
            )
            firsts = np.concatenate(([0], breaks + 1))
            pages = np.add.reduceat(entries["pages"], firsts)
            entries = entries[firsts]
            entries["pages"] = pages
        return entries

    def read(self, space: Space, vaddr: int, pages: int) -> bytes:
        """Return the bytes of consecutive pages.

        Raises:
            UsageError: Some of them are not here.
            SnapshotDamaged: The bytes stored are not those that were written.
        """
        runs = self.index.find(space, vaddr, pages)
        if (runs["position"] == HOLE).any() or int(runs["pages"].sum()) != pages:
            raise UsageError(
                f"not all of the {pages} pages at {vaddr:#x} of {space} are in the log"
            )
        return b"".join(self._chunks(runs))

    def copy_to(self, space: Space, fd: int) -> int:
        """Write all pages of a space that are here to a file, in the order of `entries`.

        Args:
            space: The space.
            fd: A descriptor, written to from its position on.

        Returns:
            How many bytes were written.

        Raises:
            SnapshotDamaged: The bytes stored are not those that were written.
            OSError: The descriptor cannot be written to.
        """
        total = 0
        for chunk in self._chunks(self.index.runs_of(space)):
            view = memoryview(chunk)
            total += len(view)
            while view:
                view = view[os.write(fd, view) :]
        return total

    def _chunks(self, runs: npt.NDArray[np.void]) -> Iterator[memoryview]:
        """Yield the bytes of runs, a frame or less at a time; the next are read meanwhile."""
        pieces = self.index.pieces(runs)
        frames = self.index.frames[np.unique(pieces["frame"])]
        # Here, because the threads would do it twice.  Frames of zeros are in no segment.
        for number in np.unique(frames["segment"][frames["stored_bytes"] > 0]).tolist():
            self._segment(number)
        codec.keep_buffers()
        workers = ThreadPoolExecutor(_THREADS, "snaplib-decode")
        waiting: collections.deque[tuple[Future[Data], int, int]] = collections.deque()
        last: tuple[int, Future[Data]] | None = None
        try:
            for piece in pieces:
                frame, first, count = (int(value) for value in piece)
                if last is None or last[0] != frame:
                    last = frame, workers.submit(self.frame, frame)
                waiting.append((last[1], first, count))
                if len(waiting) > _AHEAD:
                    yield _cut(*waiting.popleft())
            while waiting:
                yield _cut(*waiting.popleft())
        finally:
            workers.shutdown(cancel_futures=True)

    def frame(self, number: int) -> Data:
        """Return the bytes of a frame, checked.

        Raises:
            SnapshotDamaged: The bytes stored are not those that were written.
        """
        entry: Any = self.index.frames[number]
        kind, offset, size = int(entry["codec"]), int(entry["offset"]), int(entry["stored_bytes"])
        segment = int(entry["segment"])
        stored = self._segment(segment).read(offset, size) if size else b""
        where = f"{self._name(segment)}, offset {offset}"
        if len(stored) != size:
            raise SnapshotDamaged(
                f"{where}: only {len(stored)} of a frame's {size} bytes are there"
            )
        if codec.checksum(stored) != int(entry["checksum"]):
            raise SnapshotDamaged(f"{where}: the checksum of a frame of {size} bytes is wrong")
        try:
            return codec.decode(kind, stored, int(entry["pages"]) * PAGE_BYTES)
        except ValueError as error:
            raise SnapshotDamaged(f"{where}: {error}") from error

    def _segment(self, number: int) -> ObjectReader:
        reader = self._segments.get(number)
        if reader is None:
            try:
                reader = self._open_segment(number)
            except FileNotFoundError as error:
                raise SnapshotDamaged(f"{self._name(number)} is missing") from error
            self._segments[number] = reader
        return reader


def _cut(frame: Future[Data], first: int, pages: int) -> memoryview:
    return memoryview(frame.result())[first * PAGE_BYTES : (first + pages) * PAGE_BYTES]
