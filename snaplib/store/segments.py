"""Segments: the objects that frames are appended to, a new one when the last is large enough."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from snaplib.store.backend import Data, ObjectWriter

__all__ = ["SEGMENT_BYTES", "SegmentWriter"]

#: A segment ends when it is this large: large enough to be few, small enough to be rewritten one by
#: one.
SEGMENT_BYTES = 1 << 30


class SegmentWriter:
    """Appends to the current segment, from any thread.

    Args:
        create: Makes the object of a segment, given its number.
        segment_bytes: The size from which on a new segment is begun.
    """

    def __init__(
        self, create: Callable[[int], ObjectWriter], segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self._create = create
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._writers: list[ObjectWriter] = []

    def append(self, data: Data) -> tuple[int, int]:
        """Append bytes; return the number of the segment they are in, and the offset.

        Raises:
            StoreError: The bytes could not be written.
        """
        with self._lock:
            if not self._writers or self._writers[-1].size_bytes >= self._segment_bytes:
                self._writers.append(self._create(len(self._writers)))
            number = len(self._writers) - 1
            writer = self._writers[-1]
        return number, writer.append(data)

    def sizes(self) -> list[int]:
        """Return the bytes in each segment."""
        return [writer.size_bytes for writer in self._writers]

    def commit(self) -> None:
        """Make all segments durable; nobody may append any more."""
        for writer in self._writers:
            writer.commit()

    def abort(self) -> None:
        """Close and forget all segments."""
        for writer in self._writers:
            writer.abort()
