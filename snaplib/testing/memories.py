"""The memory of a task that there is not, and copies and dumps of it as a real one has them."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from snaplib.store import PAGE_BYTES, PageLogOptions, RunSet, Snapshot
from snaplib.testing.snapshots import SAMPLE_TASK, feed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from snaplib.store import Store

__all__ = ["SMALL", "SampleMemory", "check", "page"]

#: Frames and segments so small that a few pages make several.
SMALL = PageLogOptions(frame_bytes=4 * PAGE_BYTES, segment_bytes=1 << 16, workers=1)


def page(number: int) -> npt.NDArray[np.uint64]:
    """Return a page that is like no other.

    Args:
        number: Which.
    """
    return np.full(PAGE_BYTES // 8, number * 0x9E3779B97F4A7C15 & (1 << 64) - 1, np.uint64)


class SampleMemory:
    """A task's memory, and the dumps that are made of it.

    Args:
        store: Where they go.
        pages: How many pages it has.
        options: How they are written.
        find: Whether pages are found in the newest snapshot, as those of a task that was restored from it.

    Attributes:
        content: What each page holds, as a number for `page`.
        changed: The pages that have changed since they were copied.
        writer: The snapshot that is being written.
        options: How its pages are written.
    """

    def __init__(
        self,
        store: Store,
        pages: int = 24,
        options: PageLogOptions = SMALL,
        *,
        find: bool = False,
    ) -> None:
        self.store = store
        self.content = {number: number for number in range(pages)}
        self.changed = set(self.content)
        self.version = 1000
        self.options = options
        self.writer = store.begin("key", options, find=find)

    def write(self, numbers: Iterable[int]) -> None:
        """Change pages."""
        for number in numbers:
            self.version += 1
            self.content[number] = self.version
            self.changed.add(number)

    def copy_ahead(self) -> None:
        """Copy what has changed, as a round of a warm copy does."""
        log, copier = self.writer.pages, self.writer.pages.feed()
        self._forget()
        first = self.number(0)

        def read(room: memoryview, some: RunSet) -> RunSet:
            numbers = [
                number - first
                for begin, end in zip(some.begins.tolist(), some.ends.tolist(), strict=True)
                for number in range(begin, end)
            ]
            room[:] = b"".join(page(self.content[one]).tobytes() for one in numbers)
            return some

        wanted = [first + one for one in sorted(self.changed & self.content.keys())]
        copier.gather(RunSet.from_pages(wanted), read, lambda: False)
        log.take(copier)
        log.release(copier)
        log.drain()
        self.changed.clear()

    def _forget(self) -> None:
        gone = [self.number(one) for one in self.changed]
        self.writer.pages.forget(RunSet.from_pages(gone))

    def number(self, one: int) -> int:
        """Return the number of a page in the log."""
        return self.writer.pages.page_number(SAMPLE_TASK, one * PAGE_BYTES)

    def declare(self) -> None:
        """Give the log what has changed, and tell it what else there is."""
        log = self.writer.pages
        self._forget()
        for one in sorted(self.content):
            if one in self.changed:
                log.run(SAMPLE_TASK, one * PAGE_BYTES, 1, 4)
                feed(log, page(self.content[one]).tobytes())
            else:
                log.hole(SAMPLE_TASK, one * PAGE_BYTES, 1, 4)

    def dump(self) -> tuple[Snapshot, dict[int, int]]:
        """Dump what has changed; the log has the rest.

        Returns:
            The snapshot, and what each page held.
        """
        self.declare()
        self.changed.clear()
        snapshot = self.writer.commit()
        parent = self.writer.as_parent()
        self.writer = self.store.begin("key", self.options, parent=parent)
        return snapshot, dict(self.content)


def check(store: Store, snapshot_id: str, content: Mapping[int, int]) -> None:
    """Make sure that a snapshot is whole, and is what the memory was.

    Args:
        store: Where it is.
        snapshot_id: Which.
        content: What each page held.
    """
    assert store.verify(snapshot_id).findings == ()
    with store.read(snapshot_id) as reader, tempfile.TemporaryFile() as file:
        entries = reader.pages.entries(SAMPLE_TASK)
        assert entries["vaddr"].tolist() == [one * PAGE_BYTES for one in sorted(content)]
        assert len(content) == reader.snapshot.pages == reader.pages.index.pages
        reader.pages.copy_to(SAMPLE_TASK, file.fileno())
        file.seek(0)
        assert file.read() == b"".join(page(content[one]).tobytes() for one in sorted(content))
