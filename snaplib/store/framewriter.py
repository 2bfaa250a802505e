"""Frames on their way into segments: compressed where there is time, and numbered.

A full frame goes to a thread that compresses and stores it, or, when those have their hands full,
to one that stores it as it is: a frozen task does not wait for a compressor while the disk has time.
The few frame buffers are the only copy of the task's memory.
"""

from __future__ import annotations

import mmap
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from snaplib.store import budget, codec
from snaplib.store.backlog import Backlog
from snaplib.store.bulk import buffers
from snaplib.store.index import FRAME, PAGE_BYTES
from snaplib.store.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from snaplib.store.balance import CodecFigures
    from snaplib.store.logoptions import PageLogOptions
    from snaplib.store.segments import SegmentWriter

__all__ = ["FrameWriter"]

#: How often who waits for a buffer is asked whether to go on.
_ASK_EVERY_S = 0.02

_Row = tuple[int, int, int, int, int, int]
#: What tells frames apart: kind, stored bytes, pages, and 128 bits of hash.
_Content = tuple[int, int, int, int]


class FrameWriter:
    """Stores frames; any thread may give it some.

    Args:
        segments: Where they go.
        options: How to write.
        before: FRAME, shape (m,): the frames that there are already; new ones are numbered on.
    """

    def __init__(
        self,
        segments: SegmentWriter,
        options: PageLogOptions,
        before: npt.NDArray[np.void],
    ) -> None:
        self._segments = segments
        self._options = options
        self._before = before
        #: Rows of FRAME's fields, None until the frame is stored.
        self._rows: list[_Row | None] = []
        self._most_coding = budget.coding_frames(options.workers)
        self._free = buffers(budget.buffer_frames(options.workers), options.frame_bytes)
        self._buffers = tuple(self._free)
        codec.keep_buffers()
        #: Guards what follows, and tells when a frame is done.
        self._done = threading.Condition()
        self._backlog = Backlog(options.workers, options.frame_bytes)
        self._background = False
        self._failure: Exception | None = None
        #: Where frames of new segments are, by what is stored: what comes again is not stored again.
        self._known: dict[_Content, tuple[int, int]] = {}
        self._workers = Workers(options.workers)

    @property
    def frame_bytes(self) -> int:
        """The size of a whole frame."""
        return self._options.frame_bytes

    @property
    def codec_figures(self) -> CodecFigures:
        """What the codec has done so far."""
        with self._done:
            return self._backlog.codec_figures

    def check(self) -> None:
        """Raise what went wrong with a frame, if anything did.

        Raises:
            StoreError: It could not be stored.
        """
        if self._failure is not None:
            raise self._failure

    def acquire(self) -> tuple[int, memoryview]:
        """Return the number of a new frame, and a buffer to fill; `submit` is due.

        Raises:
            StoreError: What was given before could not be stored.
        """
        with self._done:
            self._done.wait_for(lambda: self._has_room() or self._failure is not None)
            self.check()
            self._rows.append(None)
            return len(self._before) + len(self._rows) - 1, self._free.pop()

    def try_acquire(self, stopped: Callable[[], bool]) -> tuple[int, memoryview] | None:
        """Do as `acquire`, but stop waiting when told; None if so.

        Args:
            stopped: Asked now and then whether to stop waiting; it must return at once.
        """
        with self._done:
            while not self._has_room() and self._failure is None:
                if stopped():
                    return None
                self._done.wait(_ASK_EVERY_S)
            return self.acquire()

    def _has_room(self) -> bool:
        if not self._free or not self._background:
            return bool(self._free)
        return self._backlog.is_short()

    def give_back(self, buffer: memoryview) -> None:
        """Take a buffer that will not be filled; its frame stays empty."""
        with self._done:
            self._free.append(buffer)
            self._done.notify_all()

    def submit(
        self,
        number: int,
        buffer: memoryview,
        fill_bytes: int,
        stopped: Callable[[], bool] | None = None,
    ) -> None:
        """Have a frame stored; waits while there is much to do.

        Args:
            number: Its number.
            buffer: What `acquire` gave.
            fill_bytes: How many bytes of it are the frame.
            stopped: Asked now and then whether to stop waiting, and leave it to the others as it is.

        Raises:
            StoreError: It, or one before, could not be stored.
        """
        at = number - len(self._before)
        view = buffer[:fill_bytes]
        if codec.is_zero(view):
            nothing = codec.checksum(b"")
            self._rows[at] = (0, codec.ZERO, 0, 0, fill_bytes // PAGE_BYTES, nothing)
            self.give_back(buffer)
        elif self._for_codec(at, fill_bytes, stopped):
            self._workers.code(self._code, at, buffer, view)
        else:
            self._workers.write(self._write, at, codec.RAW, view, buffer, coded=False)

    def drain(self, stopped: Callable[[], bool] | None = None) -> bool:
        """Wait until all frames are stored; the segments are not durable yet.

        Args:
            stopped: Asked now and then whether to stop waiting; it must return at once.

        Returns:
            Whether they are; if not, they are stored later.

        Raises:
            StoreError: One could not be stored.
        """
        with self._done:
            while self._backlog.frames and self._failure is None:
                if stopped is not None and stopped():
                    return False
                self._done.wait(_ASK_EVERY_S if stopped is not None else None)
            self.check()
        self._workers.forget_retired()
        return True

    def halted(self) -> bool:
        """Return whether the disk has had something to do for long, and done nothing of it."""
        with self._done:
            return self._backlog.halted()

    def frames(self) -> npt.NDArray[np.void]:
        """Return all frames, FRAME; those that were never stored have no pages."""
        empty: _Row = (0, codec.ZERO, 0, 0, 0, codec.checksum(b""))
        rows = np.array([row or empty for row in self._rows], FRAME)
        return np.concatenate((self._before, rows))

    def rest(self) -> None:
        """Give back until the next frame what buffers and threads have of memory, if nothing is under way."""
        with self._done:
            if not self._free or len(self._free) < len(self._buffers):
                return
            arena = self._free[0].obj
            assert isinstance(arena, mmap.mmap)
            arena.madvise(mmap.MADV_DONTNEED)
        # Each that writes has room for what direct I/O cannot take as it is.
        self._workers.finish()

    def set_background(self, *, background: bool) -> None:
        """Give way to everything else on this machine, or not; what is under way goes on.

        Raises:
            StoreError: What was given before could not be stored.
        """
        self._workers.set_background(background=background)
        self._background = background
        self.check()

    @property
    def failed(self) -> bool:
        """Whether a frame could not be stored."""
        return self._failure is not None

    def salvage(self) -> npt.NDArray[np.bool_]:
        """Go on after a failure, with the frames in those segments that are whole.

        Nobody may have a buffer.

        Returns:
            Bool, shape (frames,): which of all frames are lost.
        """
        # What is compressed still goes to those that write, who drop it.
        self._workers.finish()
        whole = self._segments.salvage()
        lost = [row is None or (row[1] != codec.ZERO and row[0] not in whole) for row in self._rows]
        self._rows = [None if gone else row for row, gone in zip(self._rows, lost, strict=True)]
        with self._done:
            self._free = list(self._buffers)
            self._backlog.clear()
            self._failure = None
            self._known = {one: place for one, place in self._known.items() if place[0] in whole}
        return np.concatenate((np.zeros(len(self._before), np.bool_), np.array(lost, np.bool_)))

    def close(self) -> None:
        """Stop, and wait for the threads; what is under way is finished or dropped."""
        self._workers.close()
        # Not left to whenever the interpreter looks for cycles, of which we are one: by then there may be more of us.
        self._free, self._buffers = [], ()

    def _for_codec(self, at: int, size: int, stopped: Callable[[], bool] | None) -> bool:
        """Wait until there is somebody for a frame, and tell whether to compress it.

        One that nobody waits for is one more: its buffer bounds it.
        """
        policy = self._options.codec
        with self._done:
            worth = policy == "zstd" or (policy == "auto" and self._backlog.worth_trying(at))
            while self._failure is None:
                at_once = stopped is not None and stopped()
                if worth and (at_once or self._backlog.coding < self._most_coding):
                    self._backlog.for_codec(size)
                    return True
                may_write = not worth or (policy == "auto" and self._backlog.disk_has_time(size))
                if may_write and (at_once or self._backlog.writing < budget.MOST_WRITING):
                    self._backlog.for_disk(size)
                    return False
                self._done.wait(_ASK_EVERY_S if stopped is not None else None)
            raise self._failure

    def _code(self, at: int, buffer: memoryview, view: memoryview) -> None:
        """Compress one frame and pass it on; runs in a thread that compresses."""
        try:
            begun = time.perf_counter()
            stored = codec.compress(view, self._options.level)
            took_s = time.perf_counter() - begun
        except Exception as error:  # noqa: BLE001 - raised again by the next call of the caller
            self._fail(error)
            return
        with self._done:
            size = len(view) if stored is None else len(stored)
            self._backlog.coded(len(view), size, took_s)
        if stored is None:
            self._workers.write(self._write, at, codec.RAW, view, buffer, coded=True)
        else:
            pages = len(view) // PAGE_BYTES
            self.give_back(buffer)
            self._workers.write(self._write, at, codec.ZSTD, stored, None, pages, coded=True)

    def _fail(self, error: Exception) -> None:
        with self._done:
            self._failure = self._failure or error
            self._done.notify_all()

    def _write(
        self,
        at: int,
        kind: int,
        stored: bytes | memoryview,
        buffer: memoryview | None,
        pages: int | None = None,
        *,
        coded: bool,
    ) -> None:
        """Store one frame; runs in a thread that writes."""
        try:
            if self._failure is None:
                self._store(at, kind, stored, pages or len(stored) // PAGE_BYTES)
        except Exception as error:  # noqa: BLE001 - raised again by the next call of the caller
            self._fail(error)
        with self._done:
            self._backlog.done(len(stored), coded=coded)
            if buffer is not None:
                self._free.append(buffer)
            self._done.notify_all()

    def _store(self, at: int, kind: int, stored: bytes | memoryview, pages: int) -> None:
        checksum, digest = codec.digest(stored)
        content = (kind, len(stored), pages, digest)
        with self._done:
            found = self._known.get(content)
        if found is None:
            found = self._append(stored)
            with self._done:
                self._known[content] = found
        segment, offset = found
        self._rows[at] = (segment, kind, offset, len(stored), pages, checksum)

    def _append(self, stored: bytes | memoryview) -> tuple[int, int]:
        with self._done:
            at_once = self._backlog.appending()
        begun = time.perf_counter()
        try:
            return self._segments.append(stored)
        finally:
            with self._done:
                self._backlog.appended(len(stored), time.perf_counter() - begun, at_once)

    def forget(self, segments: Collection[int]) -> None:
        """Store anew what comes again and is in some segments: they are to go.

        Args:
            segments: Their numbers.
        """
        with self._done:
            self._known = {
                content: place for content, place in self._known.items() if place[0] not in segments
            }
