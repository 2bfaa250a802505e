"""The page log's writer: the way of a task's memory from the page server into segments.

The caller receives straight into a frame buffer.  A full one goes to a worker that compresses and
stores it, or, when all of them have their hands full, is stored as it is by the caller: a frozen
task never waits for a compressor.  The few frame buffers are the only copy of the task's memory.
"""

from __future__ import annotations

import os
import queue
import threading
from array import array
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import attrs
import numpy as np

from snaplib.errors import UsageError
from snaplib.store import codec
from snaplib.store.index import FRAME, HOLE, PAGE_BYTES, RUN, Index, Space
from snaplib.store.segments import SEGMENT_BYTES, SegmentWriter

__all__ = ["PageLogOptions", "PageLogWriter"]


@attrs.frozen
class PageLogOptions:
    """How a page log is written.

    Attributes:
        codec: ``auto`` compresses what the workers have time for, ``zstd`` everything, ``none``
            nothing.
        level: zstd's level.
        frame_bytes: The size of a frame, a multiple of the page size.
        buffers: How many frame buffers there are, at least two.
        workers: How many threads compress; by default one less than there are CPUs, at least one.
        segment_bytes: The size from which on a new segment is begun.
    """

    codec: Literal["auto", "zstd", "none"] = "auto"
    level: int = -1
    frame_bytes: int = attrs.field(default=1 << 20)
    buffers: int = attrs.field(default=8, validator=attrs.validators.ge(2))
    workers: int = attrs.field(validator=attrs.validators.ge(1))
    segment_bytes: int = SEGMENT_BYTES

    @workers.default
    def _workers(self) -> int:
        return max(1, len(os.sched_getaffinity(0)) - 1)

    @frame_bytes.validator
    def _check_frame_bytes(self, _attribute: object, value: int) -> None:
        if value <= 0 or value % PAGE_BYTES:
            raise UsageError(f"frames of {value} bytes are not of whole pages")


class PageLogWriter:
    """Writes one page log; everything but `abort` is for one thread.

    Args:
        segments: Where frames go.
        options: How to write.
    """

    def __init__(self, segments: SegmentWriter, options: PageLogOptions | None = None) -> None:
        self._segments = segments
        self._options = options or PageLogOptions()
        #: Rows of RUN's six fields as 64-bit numbers: half the size of tuples, and numpy reads it
        #: as it is.
        self._runs = array("Q")
        self._pages = 0
        #: Bytes that the last run declared and that have not come.
        self._owed = 0
        #: Rows of FRAME's fields, None until the frame is stored.
        self._frames: list[tuple[int, int, int, int, int, int] | None] = []
        self._free: queue.LifoQueue[bytearray] = queue.LifoQueue()
        for _ in range(self._options.buffers):
            self._free.put(bytearray(self._options.frame_bytes))
        self._buffer: bytearray | None = None
        self._fill = 0
        self._lock = threading.Lock()
        self._at_work = 0
        self._failure: Exception | None = None
        self._workers = ThreadPoolExecutor(self._options.workers, "snaplib-codec")

    @property
    def pages(self) -> int:
        """How many pages with bytes have been declared so far."""
        return self._pages

    def run(self, space: Space, vaddr: int, pages: int, flags: int) -> None:
        """Declare where the next ``pages`` pages belong; their bytes come through `reserve` and
        `filled`.

        Args:
            space: The space they are in.
            vaddr: The address of the first, a multiple of the page size.
            pages: How many.
            flags: Kept as they are.
        """
        self._check_paid()
        self._add(space, vaddr, pages, flags, self._pages)
        self._pages += pages
        self._owed = pages * PAGE_BYTES

    def hole(self, space: Space, vaddr: int, pages: int, flags: int) -> None:
        """Declare pages whose bytes do not come, because a parent has them."""
        self._check_paid()
        self._add(space, vaddr, pages, flags, HOLE)

    def _add(self, space: Space, vaddr: int, pages: int, flags: int, position: int) -> None:
        if pages <= 0 or vaddr % PAGE_BYTES:
            raise UsageError(f"no run of whole pages: {pages} pages at {vaddr:#x}")
        self._runs.extend((space.kind, flags, space.id, vaddr, pages, position))

    def _check_paid(self) -> None:
        if self._owed:
            raise UsageError(f"{self._owed} bytes of the run before are missing")

    def reserve(self, limit: int) -> memoryview:
        """Give room for bytes of the last run.

        Args:
            limit: How many bytes at most.

        Returns:
            A writable view of at least one byte, good until `filled`.

        Raises:
            StoreError: What was given before could not be stored.
        """
        if self._failure is not None:
            raise self._failure
        size = min(limit, self._owed, self._options.frame_bytes - self._fill)
        if size <= 0:
            raise UsageError("no bytes are due")
        if self._buffer is None:
            self._buffer = self._free.get()
        return memoryview(self._buffer)[self._fill : self._fill + size]

    def filled(self, count: int) -> None:
        """Say that the first ``count`` bytes of what was reserved are there.

        Raises:
            StoreError: They could not be stored.
        """
        self._fill += count
        self._owed -= count
        if self._owed < 0 or self._fill > self._options.frame_bytes:
            raise UsageError("more bytes than were reserved")
        if self._fill == self._options.frame_bytes:
            self._send()

    def _send(self) -> None:
        """Have the frame in the buffer stored."""
        assert self._buffer is not None
        buffer, self._buffer = self._buffer, None
        view, self._fill = memoryview(buffer)[: self._fill], 0
        number = len(self._frames)
        self._frames.append(None)
        if codec.is_zero(view):
            self._frames[number] = (
                0,
                codec.ZERO,
                0,
                0,
                len(view) // PAGE_BYTES,
                codec.checksum(b""),
            )
            self._free.put(buffer)
        elif self._wants_worker():
            with self._lock:
                self._at_work += 1
            self._workers.submit(self._work, number, buffer, view)
        else:
            try:
                self._store(number, codec.RAW, view, len(view))
            finally:
                self._free.put(buffer)

    def _wants_worker(self) -> bool:
        if self._options.codec != "auto":
            return self._options.codec == "zstd"
        # One frame at each worker and one waiting for it.
        return self._at_work < min(2 * self._options.workers, self._options.buffers - 1)

    def _work(self, number: int, buffer: bytearray, view: memoryview) -> None:
        """Compress and store one frame, in a worker."""
        try:
            if self._failure is None:
                stored = codec.compress(view, self._options.level)
                if stored is None:
                    self._store(number, codec.RAW, view, len(view))
                else:
                    self._store(number, codec.ZSTD, stored, len(view))
        except Exception as error:  # noqa: BLE001 - raised again by the next call of the caller
            self._failure = error
        finally:
            with self._lock:
                self._at_work -= 1
            self._free.put(buffer)

    def _store(self, number: int, kind: int, stored: bytes | memoryview, raw_bytes: int) -> None:
        segment, offset = self._segments.append(stored)
        self._frames[number] = (
            segment,
            kind,
            offset,
            len(stored),
            raw_bytes // PAGE_BYTES,
            codec.checksum(stored),
        )

    def finish(self) -> Index:
        """Store what is left, wait for the workers and return the index; the segments are not yet
        durable.

        Raises:
            StoreError: Something could not be stored.
        """
        self._check_paid()
        if self._fill:
            self._send()
        self._workers.shutdown()
        if self._failure is not None:
            raise self._failure
        rows = np.array(self._runs, np.uint64).reshape(-1, len(RUN.names or ()))
        runs = np.empty(len(rows), RUN)
        for column, name in enumerate(("kind", "flags", "id", "vaddr", "pages", "position")):
            runs[name] = rows[:, column]
        return Index.build(runs, np.array(self._frames, FRAME))

    def abort(self) -> None:
        """Stop, and wait for the workers; may be called again and after `finish`."""
        self._workers.shutdown(cancel_futures=True)
