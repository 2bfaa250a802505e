"""Memory that goes from the store straight into a task that CRIU has made and not let run yet.

Copied once, by the threads that read and check it, into pages that are first touched then; through an image it would be
copied twice, one time after the other, and be there twice for a while.  CRIU waits meanwhile: its notification
``post-restore`` comes when all mappings are where they belong, and before connections and threads go on.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from snaplib.errors import RestoreFailed
from snaplib.kernel.processmemory import MemoryWriter
from snaplib.kernel.procfs import ProcFs
from snaplib.store import PAGE_BYTES, PageLogReader

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CannotFill", "fill", "pids_inside"]

_PAGE_BYTES = np.uint64(PAGE_BYTES)


class CannotFill(RestoreFailed):
    """This host lets nobody write into a process like that."""


def fill(
    pages: PageLogReader,
    runs: npt.NDArray[np.void],
    pids: Mapping[int, int],
    *,
    done: Callable[[int], None],
) -> None:
    """Write pages into processes that stand still; those that are zero are so already.

    Args:
        pages: The snapshot's pages.
        runs: RUN, shape (n,): which.
        pids: The processes, as seen here, by the ids that the runs have.
        done: Called with the bytes that are there so far, by one thread at a time; what it raises ends it.

    Raises:
        CannotFill: A process cannot be written to.
        RestoreFailed: A process has ended.
        SnapshotDamaged: The bytes stored are not those that were written.
    """
    lock = threading.Lock()
    total = 0

    with contextlib.ExitStack() as stack:
        try:
            writers = {
                one: stack.enter_context(MemoryWriter(pids[one]))
                for one in np.unique(runs["id"]).tolist()
            }
        except (KeyError, ProcessLookupError) as error:
            raise RestoreFailed("a process of the task has ended before its memory came") from error

        def write(
            frame: memoryview,
            run: npt.NDArray[np.int64],
            before: npt.NDArray[np.uint64],
            pieces: npt.NDArray[np.void],
        ) -> None:
            nonlocal total
            owners = runs["id"][run]
            offsets = pieces["first"].astype(np.uint64) * _PAGE_BYTES
            addresses = runs["vaddr"][run] + before * _PAGE_BYTES
            sizes = pieces["pages"] * _PAGE_BYTES
            for one in np.unique(owners).tolist():
                mine = owners == one
                _write(writers[one], frame, offsets[mine], addresses[mine], sizes[mine])
            with lock:
                total += int(sizes.sum())
                done(total)

        pages.use_runs(runs, write)


def _write(
    writer: MemoryWriter,
    frame: memoryview,
    offsets: npt.NDArray[np.uint64],
    addresses: npt.NDArray[np.uint64],
    sizes: npt.NDArray[np.uint64],
) -> None:
    try:
        writer.write(frame, offsets, addresses, sizes)
    except ProcessLookupError as error:
        raise RestoreFailed(
            "a process of the task was killed while its memory came",
            hint="see whether there was memory for it: what the kernel kills for that is in dmesg",
        ) from error
    except OSError as error:
        raise CannotFill(f"memory cannot be written into the task: {error}") from error


def pids_inside(init_pid: int, procfs: ProcFs | None = None) -> dict[int, int]:
    """Return the processes of a PID namespace, as seen here, by their pids in it.

    Args:
        init_pid: One process of the namespace, as seen here.
        procfs: What to look at.
    """
    procfs = procfs or ProcFs()
    namespace = procfs.namespaces(init_pid).get("pid")
    found = {}
    for pid in procfs.pids():
        with contextlib.suppress(OSError):
            if namespace is not None and procfs.namespaces(pid).get("pid") == namespace:
                found[procfs.status(pid).ns_pids[-1]] = pid
    return found
