"""Segments: the objects that frames are appended to, a new one when the last is large enough."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from snaplib.store.backend import Data, ObjectWriter

__all__ = ["SEGMENT_BYTES", "SegmentWriter"]

#: A segment ends when it is this large: large enough to be few, small enough that one of which
#: little is still needed is soon given up.
SEGMENT_BYTES = 256 << 20


@attrs.define
class _Segment:
    """One segment: its writer, and who still writes."""

    writer: ObjectWriter
    size_bytes: int = 0
    writing: int = 0
    is_full: bool = False
    is_closing: bool = False
    is_durable: bool = False
    is_gone: bool = False


class SegmentWriter:
    """Appends to the current segment, from any thread.

    A segment that is full becomes durable as soon as nobody writes to it any more, so that little is
    left for the end.

    Args:
        create: Makes the object of a segment, given its number, from 0.
        segment_bytes: The size from which on a new segment is begun.
        first: The number that the first is known by.
    """

    def __init__(
        self,
        create: Callable[[int], ObjectWriter],
        segment_bytes: int = SEGMENT_BYTES,
        first: int = 0,
    ) -> None:
        self._create = create
        self._segment_bytes = segment_bytes
        self._first = first
        self._lock = threading.Lock()
        self._segments: list[_Segment] = []

    def prepare(self) -> None:
        """Make the object of the current segment now, rather than when there is something for it."""
        with self._lock:
            self._current()

    def _current(self) -> _Segment:
        if not self._segments or self._segments[-1].is_full:
            self._segments.append(_Segment(self._create(len(self._segments))))
        return self._segments[-1]

    def append(self, data: Data) -> tuple[int, int]:
        """Append bytes; return the number that the segment is known by, and the offset in it.

        Raises:
            StoreError: The bytes could not be written.
        """
        with self._lock:
            segment = self._current()
            number = self._first + len(self._segments) - 1
            segment.writing += 1
        try:
            offset = segment.writer.append(data)
        finally:
            with self._lock:
                segment.writing -= 1
                segment.size_bytes = segment.writer.size_bytes
                segment.is_full = segment.is_full or segment.size_bytes >= self._segment_bytes
                ends = segment.is_full and not segment.writing and not segment.is_closing
                segment.is_closing = segment.is_closing or ends
        if ends:
            segment.writer.commit()
            segment.is_durable = True
        return number, offset

    def sizes(self) -> list[int]:
        """Return the bytes in each segment."""
        with self._lock:
            return [segment.size_bytes for segment in self._segments]

    def drop(self, unwanted: Collection[int]) -> None:
        """Delete full segments of which nothing is needed any more.

        Args:
            unwanted: The numbers that they are known by; those of others are passed over.
        """
        for number, segment in enumerate(self._segments, self._first):
            if number in unwanted and segment.is_durable and not segment.is_gone:
                segment.is_gone = True
                segment.writer.abort()

    def full(self) -> list[bool]:
        """Return of each segment whether it is complete."""
        with self._lock:
            return [segment.is_durable for segment in self._segments]

    def commit(self, wanted: Collection[int]) -> None:
        """Make segments durable, and forget the others; nobody may append meanwhile.

        Args:
            wanted: The numbers that the wanted ones are known by.
        """
        for number, segment in enumerate(self._segments, self._first):
            if number not in wanted:
                if not segment.is_gone:
                    segment.is_gone = segment.is_full = True
                    segment.writer.abort()
            elif not segment.is_durable:
                segment.writer.commit()
                # After a failure of something else writing goes on, but not in this one.
                segment.is_durable = segment.is_full = True

    def salvage(self) -> set[int]:
        """Give up what is not durable, after a failure; nobody may append meanwhile.

        Returns:
            The numbers that those which are left are known by.
        """
        for segment in self._segments:
            if not segment.is_durable and not segment.is_gone:
                segment.is_gone = segment.is_full = True
                segment.writer.abort()
        return {
            number
            for number, segment in enumerate(self._segments, self._first)
            if not segment.is_gone
        }

    def abort(self) -> None:
        """Close and forget all segments."""
        for segment in self._segments:
            if not segment.is_gone:
                segment.writer.abort()
