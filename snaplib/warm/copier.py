"""Copying pages of a task's processes into a page log."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING

from snaplib.kernel.processmemory import MemoryReader
from snaplib.store import RunSet, Space
from snaplib.warm.reading import read_pages

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from snaplib.kernel import ProcFs
    from snaplib.store import PageLogWriter

__all__ = ["copy_pages", "task_space"]

#: CRIU's number of a process's address space.
_TASK = 1


def task_space(ns_pid: int) -> Space:
    """Return the space of a process, as CRIU names it.

    Args:
        ns_pid: Its pid in its own PID namespace.
    """
    return Space(_TASK, ns_pid)


def copy_pages(
    log: PageLogWriter,
    procfs: ProcFs,
    pids: Mapping[int, int],
    pages: RunSet,
    *,
    stopped: Callable[[], bool],
    copied: Callable[[int], None] | None = None,
) -> RunSet:
    """Copy pages, process by process.

    Args:
        log: Where to.
        procfs: Where the processes are seen.
        pids: The pid of each process as seen there, by that in its own PID namespace.
        pages: Which, by their numbers in the log.
        stopped: Asked now and then whether to stop; returns at once.  What has been read by then may still be on its
            way to the store.
        copied: Called with the bytes of each piece that has been read; may take its time.

    Returns:
        The pages that were tried, whether they could be read or not.  Less than all only when it was
        told to stop.

    Raises:
        StoreError: They could not be stored.
    """
    tried = RunSet.of([], [])
    feed = log.feed()
    try:
        for ns_pid, pid in pids.items():
            space = task_space(ns_pid)
            mine = pages & log.pages_of(space)
            if not len(mine):
                continue
            with contextlib.ExitStack() as stack:
                try:
                    memory = stack.enter_context(MemoryReader(pid, procfs.root))
                except OSError:
                    # It has ended; so have its pages.
                    tried |= mine
                    continue
                read = functools.partial(_read, memory, log.page_number(space, 0), copied)
                tried |= feed.gather(mine, read, stopped)
        log.take(feed, stopped)
    finally:
        log.release(feed)
    return tried


def _read(
    memory: MemoryReader,
    base: int,
    copied: Callable[[int], None] | None,
    room: memoryview,
    pages: RunSet,
) -> RunSet:
    got = read_pages(memory, base, room, pages)
    if copied is not None:
        copied(len(room))
    return got
