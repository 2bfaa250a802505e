"""The threads that compress frames and those that store them, and how they give way to others."""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Workers"]

#: Threads that write: enough to keep a disk busy.
_WRITERS = 2
#: What is added to the niceness of threads that compress, less for those that write. In the background a busy
#: task leaves them a tenth of its CPU: `snaplib.warm.Pace` says how much is used, and what the window needs gets done.
_NICE = 5
_NICE_BEHIND = 10
_WRITERS_LESS = 5


class Workers:
    """Two pools of threads.

    Args:
        coders: How many compress.
    """

    def __init__(self, coders: int) -> None:
        self._count = coders
        self._nice = _NICE
        #: Guards the pools: one must not be replaced just when a thread of another passes something on to it.
        self._lock = threading.Lock()
        #: The threads of the present pools by their ids, and by how much less each gives way than one that compresses.
        self._threads: dict[int, int] = {}
        #: Pools that get nothing new, and may still be at work.
        self._retired: list[tuple[ThreadPoolExecutor, ThreadPoolExecutor]] = []
        self._coders, self._writers = self._pools()

    def code(self, work: Callable[..., None], *arguments: object) -> None:
        """Have a thread compress something."""
        with self._lock:
            self._coders.submit(work, *arguments)

    def write(self, work: Callable[..., None], *arguments: object, **options: object) -> None:
        """Have a thread store something."""
        with self._lock:
            self._writers.submit(work, *arguments, **options)

    def set_background(self, *, background: bool) -> None:
        """Give way to everything else on this machine, or not; what is under way goes on."""
        with self._lock:
            self._nice = _NICE_BEHIND if background else _NICE
            # What is under way would be long in coming, where a busy task has the only CPU.
            self._renice()
            # Threads may not be allowed to be less nice than they were: new ones are.
            self._coders.shutdown(wait=False)
            self._writers.shutdown(wait=False)
            self._retired.append((self._coders, self._writers))
            self._coders, self._writers = self._pools()

    def finish(self) -> None:
        """Wait until all is done, and begin anew."""
        self._end(drop=False)
        with self._lock:
            self._coders, self._writers = self._pools()

    def close(self) -> None:
        """Stop, and wait for the threads; what has not begun is dropped."""
        self._end(drop=True)

    def _end(self, *, drop: bool) -> None:
        with self._lock:
            pools = [*self._retired, (self._coders, self._writers)]
            self._retired = []
        # In this order: what is compressed is passed on.
        for coders, _writers in pools:
            coders.shutdown(cancel_futures=drop)
        for _coders, writers in pools:
            writers.shutdown(cancel_futures=drop)

    def forget_retired(self) -> None:
        """Let go of threads that have nothing to do any more; nothing may be under way."""
        with self._lock:
            retired, self._retired = self._retired, []
        for coders, writers in retired:
            coders.shutdown()
            writers.shutdown()

    def _pools(self) -> tuple[ThreadPoolExecutor, ThreadPoolExecutor]:
        # Coders get the CPU after those that receive: what they leave is stored raw.
        self._threads = {}
        return (
            ThreadPoolExecutor(
                self._count,
                "snaplib-codec",
                initializer=self._give_way,
                initargs=(self._threads, 0),
            ),
            ThreadPoolExecutor(
                _WRITERS,
                "snaplib-write",
                initializer=self._give_way,
                initargs=(self._threads, _WRITERS_LESS),
            ),
        )

    def _give_way(self, threads: dict[int, int], less: int) -> None:
        """Have this thread get the CPU after others."""
        tid = threading.get_native_id()
        threads[tid] = less
        own = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, tid, min(19, own + self._nice - less))

    def _renice(self) -> None:
        """Have the threads that there are get the CPU sooner, or later, if this process may do that."""
        own = os.getpriority(os.PRIO_PROCESS, 0)
        for tid, less in list(self._threads.items()):
            with contextlib.suppress(PermissionError, ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, tid, min(19, own + self._nice - less))
