"""The page log's writer: the way of a task's memory from the page server into segments.

The caller receives straight into a frame buffer.  A full one goes to a thread that compresses and
stores it, or, when those have their hands full, to one that stores it as it is: a frozen task does
not wait for a compressor while the disk has time.  The few frame buffers are the only copy of the
task's memory.
"""

from __future__ import annotations

import os
import threading
import time
from array import array
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import attrs
import numpy as np

from snaplib.errors import UsageError
from snaplib.store import codec
from snaplib.store.balance import Balance
from snaplib.store.bulk import buffers
from snaplib.store.index import FRAME, HOLE, PAGE_BYTES, RUN, Index, Space
from snaplib.store.segments import SEGMENT_BYTES, SegmentWriter

__all__ = ["PageLogOptions", "PageLogWriter"]

#: Threads that write frames as they are, and how many such frames may be under way: enough to keep
#: a disk busy.
_WRITERS = 2
_MOST_WRITING = 4


@attrs.frozen
class PageLogOptions:
    """How a page log is written.

    Attributes:
        codec: ``auto`` compresses what there is time for, ``zstd`` everything, ``none`` nothing.
        level: zstd's level.
        frame_bytes: The size of a frame, a multiple of the page size.
        workers: How many threads compress; by default one less than there are CPUs, from 1 to 8.
        segment_bytes: The size from which on a new segment is begun.
    """

    codec: Literal["auto", "zstd", "none"] = "auto"
    level: int = -1
    # Each frame costs a few hand-overs between threads: larger ones cost less a byte.
    frame_bytes: int = attrs.field(default=4 << 20)
    workers: int = attrs.field(validator=attrs.validators.ge(1))
    segment_bytes: int = SEGMENT_BYTES

    @workers.default
    def _workers(self) -> int:
        # Eight compress faster than one socket delivers.
        return min(8, max(1, len(os.sched_getaffinity(0)) - 1))

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
        #: The pages of each frame.
        self._sizes = array("L")
        size = self._options.frame_bytes
        #: Frames for the codec: for each worker one that waits, one that it compresses, and one
        #: that is being written.
        self._most_coding = 3 * self._options.workers
        count = self._most_coding + _MOST_WRITING + 1
        self._free = buffers(count, size)
        self._buffer: memoryview | None = None
        self._fill = 0
        codec.keep_buffers()
        #: Guards what follows, and tells when a frame is done.
        self._done = threading.Condition()
        self._coding = 0
        self._writing = 0
        self._storing = 0
        self._balance = Balance(self._options.workers)
        self._failure: Exception | None = None
        self._coders = ThreadPoolExecutor(
            self._options.workers, "snaplib-codec", initializer=_give_way
        )
        self._writers = ThreadPoolExecutor(_WRITERS, "snaplib-write")

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
            with self._done:
                self._done.wait_for(lambda: self._free or self._failure is not None)
                if self._failure is not None:
                    raise self._failure
                self._buffer = self._free.pop()
        return self._buffer[self._fill : self._fill + size]

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
        view, self._fill = buffer[: self._fill], 0
        number = len(self._frames)
        self._frames.append(None)
        self._sizes.append(len(view) // PAGE_BYTES)
        if codec.is_zero(view):
            nothing = codec.checksum(b"")
            self._frames[number] = (0, codec.ZERO, 0, 0, self._sizes[number], nothing)
            self._free.append(buffer)
        elif self._for_codec(number):
            self._coders.submit(self._code, number, buffer, view)
        else:
            self._writers.submit(self._write, number, codec.RAW, view, buffer, coded=False)

    def _for_codec(self, number: int) -> bool:
        """Wait until there is somebody for a frame, and tell whether to compress it."""
        policy = self._options.codec
        with self._done:
            worth = policy == "zstd" or (policy == "auto" and self._balance.worth_trying(number))
            while self._failure is None:
                if worth and self._coding < self._most_coding:
                    self._coding += 1
                    return True
                may_write = not worth or (policy == "auto" and self._balance.disk_has_time)
                if may_write and self._writing < _MOST_WRITING:
                    self._writing += 1
                    return False
                self._done.wait()
            raise self._failure

    def _code(self, number: int, buffer: memoryview, view: memoryview) -> None:
        """Compress one frame and pass it on; runs in a thread of `_coders`."""
        try:
            begun = time.perf_counter()
            stored = codec.compress(view, self._options.level)
            took_s = time.perf_counter() - begun
        except Exception as error:  # noqa: BLE001 - raised again by the next call of the caller
            with self._done:
                self._failure = error
                self._done.notify()
            return
        with self._done:
            size = len(view) if stored is None else len(stored)
            self._balance.compressed(len(view), size, took_s)
        if stored is None:
            self._writers.submit(self._write, number, codec.RAW, view, buffer, coded=True)
        else:
            self._release(buffer)
            self._writers.submit(self._write, number, codec.ZSTD, stored, None, coded=True)

    def _release(self, buffer: memoryview) -> None:
        with self._done:
            self._free.append(buffer)
            self._done.notify()

    def _write(
        self,
        number: int,
        kind: int,
        stored: bytes | memoryview,
        buffer: memoryview | None,
        *,
        coded: bool,
    ) -> None:
        """Store one frame; runs in a thread of `_writers`."""
        try:
            if self._failure is None:
                self._store(number, kind, stored)
        except Exception as error:  # noqa: BLE001 - raised again by the next call of the caller
            self._failure = error
        with self._done:
            if coded:
                self._coding -= 1
            else:
                self._writing -= 1
            if buffer is not None:
                self._free.append(buffer)
            self._done.notify()

    def _store(self, number: int, kind: int, stored: bytes | memoryview) -> None:
        checksum = codec.checksum(stored)
        with self._done:
            self._storing += 1
            at_once = self._storing
        begun = time.perf_counter()
        try:
            segment, offset = self._segments.append(stored)
        finally:
            with self._done:
                self._storing -= 1
                self._balance.written(len(stored), time.perf_counter() - begun, at_once)
        self._frames[number] = (segment, kind, offset, len(stored), self._sizes[number], checksum)

    def finish(self) -> Index:
        """Store what is left, wait for the workers and return the index; the segments are not yet
        durable.

        Raises:
            StoreError: Something could not be stored.
        """
        self._check_paid()
        if self._fill:
            self._send()
        self._coders.shutdown()
        self._writers.shutdown()
        if self._failure is not None:
            raise self._failure
        rows = np.array(self._runs, np.uint64).reshape(-1, len(RUN.names or ()))
        runs = np.empty(len(rows), RUN)
        for column, name in enumerate(("kind", "flags", "id", "vaddr", "pages", "position")):
            runs[name] = rows[:, column]
        return Index.build(runs, np.array(self._frames, FRAME))

    def abort(self) -> None:
        """Stop, and wait for the workers; may be called again and after `finish`."""
        self._coders.shutdown(cancel_futures=True)
        self._writers.shutdown(cancel_futures=True)


def _give_way() -> None:
    """Have this thread get the CPU after those that receive: what it leaves is stored raw."""
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice + 5)
