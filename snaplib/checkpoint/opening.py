"""A snapshot that is begun in the store while its task is being stopped.

At a notice every second counts, and a store may take its time, or never answer: so the task is frozen meanwhile.  What
CRIU sends waits for the snapshot, and so does the task, but not beyond the deadline of its dump.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    from snaplib.store import PageLogWriter, Space
    from snaplib.store.snapshot import SnapshotWriter

__all__ = ["LateSink", "Opening"]


class Opening:
    """A new snapshot, begun in a thread of its own; as a context manager it is aborted unless it was committed.

    Args:
        begin: Begins it.
    """

    def __init__(self, begin: Callable[[], SnapshotWriter]) -> None:
        pool = ThreadPoolExecutor(1, "snaplib-begin")
        self.coming: Future[SnapshotWriter] = pool.submit(begin)
        pool.shutdown(wait=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self.coming.exception() is None:
            self.coming.result().abort()


class LateSink:
    """Takes the pages of a snapshot that is still being begun: who brings the first one waits for it.

    Args:
        coming: The snapshot.
    """

    def __init__(self, coming: Future[SnapshotWriter]) -> None:
        self._coming = coming

    @property
    def _log(self) -> PageLogWriter:
        return self._coming.result().pages

    def run(self, space: Space, vaddr: int, pages: int, flags: int) -> None:
        """Declare where the next ``pages`` pages belong."""
        self._log.run(space, vaddr, pages, flags)

    def hole(self, space: Space, vaddr: int, pages: int, flags: int) -> None:
        """Declare pages that come without bytes."""
        self._log.hole(space, vaddr, pages, flags)

    def reserve(self, limit: int) -> memoryview:
        """Give room for at most ``limit`` of the declared bytes."""
        return self._log.reserve(limit)

    def filled(self, count: int) -> None:
        """Say that ``count`` bytes were put into what was reserved."""
        self._log.filled(count)
