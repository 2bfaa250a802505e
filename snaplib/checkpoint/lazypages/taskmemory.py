"""The memory of one process that comes while the process runs, and changes its mappings, forks and ends."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable

import numpy as np

from snaplib.checkpoint.lazypages.gate import Gate
from snaplib.checkpoint.lazypages.layout import Layout
from snaplib.checkpoint.lazypages.pieces import Pieces
from snaplib.kernel.missing import Fault, Forked, MissingMemory, Moved, Removed
from snaplib.store.backend import Data
from snaplib.store.index import PAGE_BYTES

__all__ = ["TaskMemory"]

#: What a process gives back is left to the kernel from so many bytes on; each such range costs it a mapping.
_LET_GO_BYTES = 1 << 20
#: Who uses one page that never was is likely to use the next ones too.
_ZEROS_BYTES = 64 << 10
#: An event is read as soon as somebody is there to read it; the process must then come to say so to the kernel.
_EVENT_S = 0.0005
_NO_MEMORY_S = 0.5
_NO_MEMORY_TRIES = 60


class TaskMemory:
    """One address space.

    Args:
        missing: Its userfaultfd.
        pieces: What it misses, at addresses as they were when it was dumped.
        layout: Where that is now, if not where it was.
        left: The frames that it needs still; all of them by default.

    Attributes:
        left: The frames that it needs still: a frame is taken out once all of it is there.
    """

    def __init__(
        self,
        missing: MissingMemory,
        pieces: Pieces,
        layout: Layout | None = None,
        left: set[int] | None = None,
    ) -> None:
        self._missing = missing
        self._pieces = pieces
        self._layout = layout
        self.left = pieces.frames() if left is None else left
        # What is put, and where that is, must not change in between: events are read by one who is alone.
        self._gate = Gate()
        self._gone = False

    def fileno(self) -> int:
        """Return the descriptor, which can be read when there is something to hear."""
        return self._missing.fileno()

    def close(self) -> None:
        """Let go: what is missing still will read as zeros."""
        with self._gate.alone():
            self._gone = True
            self._missing.close()

    def hear(self) -> tuple[list[int], list[TaskMemory]]:
        """Read what has happened.

        Returns:
            The addresses that threads wait for, and the processes that have been forked.
        """
        faults: list[int] = []
        children: list[TaskMemory] = []
        with self._gate.alone():
            for event in self._missing.events():
                if isinstance(event, Fault):
                    faults.append(event.address)
                    continue
                if isinstance(event, Forked):
                    children.append(
                        TaskMemory(event.memory, self._pieces, self._layout, set(self.left))
                    )
                    continue
                layout = self._pieces.layout() if self._layout is None else self._layout
                if isinstance(event, Moved):
                    self._layout = layout.moved(event.begin, event.to, event.size)
                    continue
                self._layout = layout.without(event.begin, event.end)
                if isinstance(event, Removed) and event.end - event.begin >= _LET_GO_BYTES:
                    # Else each page of it would come back through us.
                    with contextlib.suppress(OSError):
                        self._missing.let_go(event.begin, event.end)
        return faults, children

    def answer(self, address: int) -> tuple[int, int] | None:
        """Answer a thread that waits for a page, where that needs no frame.

        Args:
            address: The page's address now.

        Returns:
            The frame that must come for it, and the address that the page had when it was dumped; None where it was
            answered.

        Raises:
            BlockingIOError: Events must be read first; then ask again.
        """
        with self._gate.together():
            if self._gone:
                return None
            origin = address if self._layout is None else self._layout.origin(address)
            frame = None if origin is None else self._pieces.frame_at(origin)
            if frame is not None and origin is not None and frame in self.left:
                return frame, origin
            # It never had contents, or the process has given them up: what came is there.
            try:
                self._zero(address)
            except BlockingIOError:
                raise
            except OSError as error:
                if error.errno == errno.ESRCH:
                    self._end()
                elif error.errno in (errno.EEXIST, errno.ENOENT):
                    # There is a page by now, or nothing that could have one: it will see.
                    with contextlib.suppress(OSError):
                        self._missing.wake(address, PAGE_BYTES)
                else:
                    raise
            return None

    def _zero(self, address: int) -> None:
        """Put a page of zeros, and more after it where a process that has not changed its mappings never had any."""
        most = self._pieces.nothing_at(address, _ZEROS_BYTES) if self._layout is None else 0
        if most > PAGE_BYTES:
            try:
                self._missing.zero(address, most)
                return
            except OSError as error:
                # Perhaps the mapping ends before.
                if error.errno != errno.ENOENT:
                    raise
        self._missing.zero(address, PAGE_BYTES)

    def needs(self, frame: int) -> bool:
        """Return whether something of a frame must come still."""
        with self._gate.together():
            layout = self._layout
            if layout is not None and frame in self.left:
                chunks = self._pieces.chunks(frame)
                if not any(layout.first(one, one + size) for one, _offset, size in chunks):
                    self.left.discard(frame)
            return frame in self.left

    def put(self, frame: int, data: Data, near: int | None, put: Callable[[int], None]) -> None:
        """Put a frame's pages where they belong now; those that are there stay as they are.

        Args:
            frame: The frame.
            data: Its bytes.
            near: An address that somebody waits for, as it was when it was dumped.
            put: Told of bytes that are there.

        Raises:
            OSError: They cannot be put: ENOMEM where there is no memory for them.
        """
        if frame not in self.left:
            return
        bytes_there = np.frombuffer(data, np.uint8)
        source = bytes_there.ctypes.data
        for address, offset, size in self._pieces.chunks(frame, near):
            self._put(address, source + offset, size)
            if self._gone:
                return
            put(size)
        self.left.discard(frame)

    def _put(self, begin: int, source: int, size: int) -> None:
        at, end = begin, begin + size
        without_memory = 0
        while at < end:
            with self._gate.together():
                if self._gone:
                    return
                now, length = at, end - at
                if self._layout is not None:
                    found = self._layout.first(at, end)
                    if found is None:
                        return
                    at, now, length = found
                try:
                    at += self._copy(source + at - begin, now, length)
                    continue
                except OSError as error:
                    if error.errno == errno.ESRCH:
                        self._end()
                        return
                    pause_s = _EVENT_S
                    if error.errno == errno.ENOMEM and without_memory < _NO_MEMORY_TRIES:
                        without_memory += 1
                        pause_s = _NO_MEMORY_S
                    elif error.errno != errno.EAGAIN:
                        raise
            time.sleep(pause_s)

    def _copy(self, source: int, address: int, size: int) -> int:
        """Return how many bytes need no more doing."""
        while True:
            try:
                return self._missing.copy(source, address, size)
            except OSError as error:
                if error.errno == errno.EEXIST:
                    return PAGE_BYTES
                if error.errno != errno.ENOENT:
                    raise
                if size == PAGE_BYTES:
                    # Unmapped since, or replaced by what has contents of its own.
                    return PAGE_BYTES
                # Perhaps two mappings by now: the process has changed what it may do with a part.
                size = size // PAGE_BYTES // 2 * PAGE_BYTES

    def _end(self) -> None:
        self._gone = True
        self.left.clear()
