"""Brings the missing memory of a task's processes: threads that read frames, and one that hears what processes do."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from snaplib.checkpoint.lazypages.framequeue import FrameQueue, Wanted
from snaplib.checkpoint.lazypages.pieces import Pieces
from snaplib.checkpoint.lazypages.reception import RestoreGone, receive
from snaplib.checkpoint.lazypages.taskmemory import TaskMemory
from snaplib.kernel.missing import MissingMemory
from snaplib.store.backend import Data
from snaplib.store.index import Index
from snaplib.store.patience import patiently

__all__ = ["Frames", "Service"]

#: Until faults that could not be answered are looked at again.
_AGAIN_MS = 1


class Frames(Protocol):
    """Where frames come from: `snaplib.store.PageLogReader`, or a fake."""

    @property
    def index(self) -> Index:
        """Where pages lie."""

    @property
    def threads(self) -> int:
        """How many threads are worth having."""

    def frame_room(self) -> memoryview:
        """Return a buffer for a frame."""

    def load_frame(self, number: int, room: memoryview) -> Data:
        """Return a frame's bytes, good until something else is read into that room."""


class Service:
    """Serves one task.

    Args:
        frames: The snapshot's frames.
        pieces: What each process misses, by its pid in the images.
        first: Frames to fetch before anybody asks for them.
        keep: Told of each userfaultfd, before the process can run.
        drop: Told of each that was closed.
        served: Told of bytes that are there, by several threads.
    """

    def __init__(
        self,
        frames: Frames,
        pieces: Mapping[int, Pieces],
        first: Iterable[int],
        *,
        keep: Callable[[int], None] = lambda _descriptor: None,
        drop: Callable[[int], None] = lambda _descriptor: None,
        served: Callable[[int], None] = lambda _size: None,
    ) -> None:
        self._frames = frames
        self._pieces = pieces
        self._nothing = Pieces(frames.index, frames.index.runs[:0])
        wanted = set[int]().union(*(one.frames() for one in pieces.values()))
        self._queue = FrameQueue(len(frames.index.frames), wanted, first)
        self._keep = keep
        self._drop = drop
        self._served = served
        self._memories: list[TaskMemory] = []
        self._by_descriptor: dict[int, TaskMemory] = {}
        self._poll = select.poll()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._bell, select.POLLIN)
        self._lock = threading.Lock()
        #: Who waits for a frame that is to come, and for which address; and frames that have come since.
        self._asked: defaultdict[int, list[tuple[TaskMemory, int]]] = defaultdict(list)
        self._came: list[int] = []
        self._again: list[tuple[TaskMemory, int]] = []
        self._failure: BaseException | None = None
        self._closed = threading.Event()
        # One more for those who wait: all others may be at frames that nobody waits for yet.
        self._workers = [
            threading.Thread(target=self._work, args=(number == 0,), name="snaplib-frames")
            for number in range(frames.threads + 1)
        ]
        for worker in self._workers:
            worker.start()

    def serve(self, listener: socket.socket) -> None:
        """Serve until all memory is there.

        Args:
            listener: Where CRIU's restore connects to.

        Raises:
            RestoreGone: There is no task: the restore went away.
            SnapshotDamaged: The store has not what was written.
            OSError: Memory cannot be put into a process.
        """
        restore: socket.socket | None = None
        is_restored = False
        self._poll.register(listener, select.POLLIN)
        try:
            while not is_restored or self._memories:
                timeout_ms = _AGAIN_MS if self._again else None
                ready = {descriptor for descriptor, _events in self._poll.poll(timeout_ms)}
                if self._bell in ready:
                    os.eventfd_read(self._bell)
                if self._failure is not None:
                    raise self._failure
                if restore is None and listener.fileno() in ready:
                    restore, _address = listener.accept()
                    self._poll.unregister(listener)
                    self._poll.register(restore, select.POLLIN)
                elif restore is not None and restore.fileno() in ready:
                    is_restored = self._hear_restore(restore)
                    if is_restored:
                        self._poll.unregister(restore)
                self._hear_processes(ready & self._by_descriptor.keys())
                self._ask_again()
                if is_restored:
                    self._let_go([one for one in self._memories if not one.left])
        finally:
            if restore is not None:
                restore.close()

    def stop(self) -> None:
        """Have `serve` raise; any thread may call."""
        self._fail(RestoreGone("the task does not run"))

    def close(self) -> None:
        """Let go of all processes, and end the threads."""
        self._closed.set()
        self._queue.close()
        for worker in self._workers:
            worker.join()
        self._let_go(self._memories)
        with self._lock:
            os.close(self._bell)
            self._bell = -1

    def _hear_restore(self, restore: socket.socket) -> bool:
        """Take what a restore says: the next process, or, true, that all are there."""
        found = receive(restore)
        if found is None:
            # Until now mappings were being made, and none was ready for what it misses.
            self._queue.open()
            return True
        pid, descriptor = found
        if descriptor is not None:
            self._add(TaskMemory(MissingMemory(descriptor), self._pieces.get(pid, self._nothing)))
        return False

    def _add(self, memory: TaskMemory) -> None:
        self._keep(memory.fileno())
        self._memories = [*self._memories, memory]
        self._by_descriptor[memory.fileno()] = memory
        self._poll.register(memory.fileno(), select.POLLIN)

    def _let_go(self, memories: list[TaskMemory]) -> None:
        """Close memory that is complete, or whose process has ended: what else is missing there is the kernel's.

        What is forked in this moment misses nothing either: while a fork waits to be heard of, nothing can be put.
        """
        for memory in memories:
            descriptor = memory.fileno()
            del self._by_descriptor[descriptor]
            self._poll.unregister(descriptor)
            memory.close()
            self._drop(descriptor)
        self._memories = [one for one in self._memories if one not in memories]

    def _hear_processes(self, ready: set[int]) -> None:
        for descriptor in ready:
            memory = self._by_descriptor[descriptor]
            faults, children = memory.hear()
            for child in children:
                self._add(child)
                self._queue.put(child.left)
            for address in faults:
                self._ask(memory, address)

    def _ask(self, memory: TaskMemory, address: int) -> None:
        try:
            found = memory.answer(address)
        except BlockingIOError:
            self._again.append((memory, address))
            return
        if found is not None:
            frame, near = found
            with self._lock:
                self._asked[frame].append((memory, address))
            self._queue.urge(frame, near)

    def _ask_again(self) -> None:
        """Look at each thread again that could not be answered, or whose frame has come: no one must be forgotten."""
        again, self._again = self._again, []
        with self._lock:
            came, self._came = self._came, []
            for frame in came:
                again += self._asked.pop(frame, [])
        for memory, address in again:
            self._ask(memory, address)

    def _work(self, urgent: bool) -> None:
        try:
            room = self._frames.frame_room()
            while (wanted := self._queue.take(urgent=urgent)) is not None:
                self._bring(wanted, room)
        except BaseException as error:  # noqa: BLE001 - raised again by serve()
            self._fail(error)

    def _bring(self, wanted: Wanted, room: memoryview) -> None:
        frame = wanted.frame
        # Until all processes are there one more may need it.
        if not self._queue.is_open or any(one.needs(frame) for one in self._memories):
            data = patiently(
                lambda: self._frames.load_frame(frame, room), lambda s: not self._closed.wait(s)
            )
            if not self._queue.wait_to_put(frame):
                return
            for memory in self._memories:
                memory.put(frame, data, wanted.near, self._served)
        self._queue.done(frame)
        with self._lock:
            self._came.append(frame)
        self._ring()

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._queue.close()
        self._ring()

    def _ring(self) -> None:
        with self._lock:
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)
