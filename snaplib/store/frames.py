"""Reading frames: straight from the disk, ahead of who wants them, each checked."""

from __future__ import annotations

import collections
import threading
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any

from snaplib.errors import SnapshotDamaged
from snaplib.store import budget, codec
from snaplib.store.bulk import BLOCK_BYTES, buffers
from snaplib.store.index import PAGE_BYTES, Index

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from snaplib.store.backend import Data, ObjectReader

__all__ = ["LOCAL_THREADS", "REMOTE_THREADS", "FrameReader"]

#: The threads that read: enough for a disk, and for a store that takes its time to answer.
LOCAL_THREADS = 2
REMOTE_THREADS = 8
#: Frames that are read ahead beyond those that the threads are at: a bound for the memory.
_AHEAD = 4
#: Threads beyond those where each of them decodes as well.
_DECODING = 2


class FrameReader:
    """Reads the frames of an index.

    Args:
        index: The index.
        open_segment: Opens a segment, given its number.
        name: How to name a segment in errors, given its number.
        threads: How many frames to read at once.
    """

    def __init__(
        self,
        index: Index,
        open_segment: Callable[[int], ObjectReader],
        name: Callable[[int], str],
        threads: int = LOCAL_THREADS,
    ) -> None:
        self._index = index
        self._open_segment = open_segment
        self._name = name
        self._segments: dict[int, ObjectReader] = {}
        largest = int(index.frames["stored_bytes"].max(initial=0))
        self._room_bytes = -(-largest // BLOCK_BYTES) * BLOCK_BYTES or BLOCK_BYTES
        # A frame is in a room as it is stored, and beside it once it is decoded.
        largest = int(index.frames["pages"].max(initial=0)) * PAGE_BYTES + self._room_bytes
        self._threads = budget.reading_threads(threads, largest, _DECODING)
        self._own_room: memoryview | None = None
        self._opening = threading.Lock()

    def close(self) -> None:
        """Close the segments; may be called again."""
        while self._segments:
            self._segments.popitem()[1].close()

    def one(self, number: int) -> Data:
        """Return the bytes of a frame, good until the next call.

        Raises:
            SnapshotDamaged: The bytes stored are not those that were written.
        """
        if self._own_room is None:
            (self._own_room,) = buffers(1, self._room_bytes)
        return self._load(number, self._own_room)

    @property
    def threads(self) -> int:
        """How many threads are worth having where each of them decodes what it reads."""
        # While some wait for the disk, others decode.
        return self._threads + _DECODING

    def room(self) -> memoryview:
        """Return a buffer that any frame can be read into."""
        codec.keep_buffers()
        (room,) = buffers(1, self._room_bytes)
        return room

    def load(self, number: int, room: memoryview) -> Data:
        """Return the bytes of a frame, good for as long as nothing else is read into that room; any thread may call.

        Raises:
            SnapshotDamaged: The bytes stored are not those that were written.
        """
        with self._opening:
            self._segment_of(number)
        return self._load(number, room)

    def stream(self, numbers: Iterable[int]) -> Generator[Data, None, None]:
        """Yield the bytes of frames, each good until the next is asked for.

        Args:
            numbers: The frames, in the order in which they are wanted.

        Raises:
            SnapshotDamaged: The bytes stored are not those that were written.
        """
        codec.keep_buffers()
        rooms = buffers(self._threads + _AHEAD + 1, self._room_bytes)
        waiting: collections.deque[tuple[Future[Data], memoryview]] = collections.deque()
        workers = ThreadPoolExecutor(self._threads, "snaplib-frames")
        try:
            for number in numbers:
                if not rooms:
                    future, room = waiting.popleft()
                    yield future.result()
                    rooms.append(room)
                # Opened here, because the threads would do it twice.
                self._segment_of(number)
                room = rooms.pop()
                waiting.append((workers.submit(self._load, number, room), room))
            while waiting:
                yield waiting.popleft()[0].result()
        finally:
            workers.shutdown(cancel_futures=True)

    def each(self, numbers: Sequence[int], use: Callable[[int, Data], None]) -> None:
        """Have every frame used by the thread that has read it, several at a time.

        Args:
            numbers: The frames, in the order in which they are begun.
            use: Called with the place in ``numbers`` and the frame's bytes, which are good until it returns.

        Raises:
            SnapshotDamaged: The bytes stored are not those that were written.
        """
        codec.keep_buffers()
        threads = min(self.threads, len(numbers))
        if not threads:
            return
        places = iter(range(len(numbers)))
        taking = threading.Lock()
        failed = threading.Event()

        def work(room: memoryview) -> None:
            while not failed.is_set():
                with taking:
                    place = next(places, None)
                    if place is None:
                        return
                    self._segment_of(numbers[place])
                try:
                    use(place, self._load(numbers[place], room))
                except BaseException:
                    failed.set()
                    raise

        rooms = buffers(threads, self._room_bytes)
        with ThreadPoolExecutor(threads, "snaplib-frames") as workers:
            working = [workers.submit(work, room) for room in rooms]
            try:
                for future in as_completed(working):
                    future.result()
            finally:
                failed.set()

    def _load(self, number: int, room: memoryview) -> Data:
        entry: Any = self._index.frames[number]
        kind, offset, size = int(entry["codec"]), int(entry["offset"]), int(entry["stored_bytes"])
        segment = self._segment_of(number)
        count = segment.read_into(offset, room, size) if segment else 0
        if count != size:
            problem = f"only {count} of a frame's {size} bytes are there"
            raise self._damaged(number, problem)
        stored = room[:size]
        if codec.checksum(stored) != int(entry["checksum"]):
            raise self._damaged(number, f"the checksum of a frame of {size} bytes is wrong")
        try:
            return codec.decode(kind, stored, int(entry["pages"]) * PAGE_BYTES)
        except ValueError as error:
            raise self._damaged(number, str(error)) from error

    def _damaged(self, number: int, problem: str) -> SnapshotDamaged:
        entry: Any = self._index.frames[number]
        where = (
            self._name(int(entry["segment"])) if int(entry["stored_bytes"]) else "a frame of zeros"
        )
        return SnapshotDamaged(f"{where}, offset {int(entry['offset'])}: {problem}")

    def _segment_of(self, frame: int) -> ObjectReader | None:
        """Return the segment that a frame is in; None for frames of zeros, which are in none."""
        entry: Any = self._index.frames[frame]
        if not int(entry["stored_bytes"]):
            return None
        number = int(entry["segment"])
        reader = self._segments.get(number)
        if reader is None:
            try:
                reader = self._open_segment(number)
            except FileNotFoundError as error:
                raise SnapshotDamaged(f"{self._name(number)} is missing") from error
            self._segments[number] = reader
        return reader
