"""A copy of a task's memory that is kept by a tracker's word alone, and compared with the truth."""

from __future__ import annotations

import os

import numpy as np

from snaplib.kernel.pagemap import Category, Pagemap
from snaplib.task import Task
from snaplib.track import PAGE_BYTES, DirtyScan, MemoryKind, WriteProtect
from snaplib.track.areas import areas_of

_ALL_CATEGORIES = 0xFF


class Shadow:
    """A copy of a process's memory, kept up to date by a tracker and compared with the truth.

    Args:
        task: Whose root process is compared.
        tracker: That has armed it.

    Attributes:
        compared: How many pages have been compared so far.
        missing: Each page that differed from the copy without having been reported, with what is
            known of it.
    """

    def __init__(self, task: Task, tracker: WriteProtect) -> None:
        self.task = task
        self.tracker = tracker
        self.reported: set[int] = set()
        self.copy: dict[int, int] = {}
        self.compared = 0
        self.missing: list[str] = []

    def look(self) -> None:
        """Scan while the task runs."""
        self._note(self.tracker.scan())

    def copy_ahead(self) -> None:
        """Scan, and copy what is dirty, all while the task runs."""
        scan = self.tracker.scan(still=True)
        if not scan.still:
            # It could not be stopped in time, so there is no telling what a disk still writes.
            self._note(scan)
            return
        memory = os.open(f"/proc/{self.task.pid}/mem", os.O_RDONLY)
        try:
            for run in scan.process(self.task.pid).dirty:
                start = int(run["start"])
                end = start + int(run["pages"]) * PAGE_BYTES
                self.copy.update(dict.fromkeys(range(start, end, PAGE_BYTES), 0))
                self.copy.update(_pages(memory, start, end))
        finally:
            os.close(memory)

    def compare(self) -> None:
        """Stop the task, scan, and compare all of its memory with the copy."""
        with self.task.frozen(20.0):
            self._note(self.tracker.scan(frozen_by_caller=True))
            truth = self._read()
            for page, content in truth.items():
                if self.copy.get(page, 0) != content and page not in self.reported:
                    self.missing.append(self._describe(page, self.copy.get(page, 0), content))
        self.compared += len(truth)
        self.copy = truth
        self.reported.clear()

    def _note(self, scan: DirtyScan) -> None:
        for run in scan.process(self.task.pid).dirty:
            start = int(run["start"])
            self.reported.update(range(start, start + int(run["pages"]) * PAGE_BYTES, PAGE_BYTES))

    def _describe(self, page: int, copied: int, found: int) -> str:
        for area in areas_of(self.task.procfs.maps(self.task.pid)):
            if area.start <= page < area.end:
                with Pagemap(f"/proc/{self.task.pid}/pagemap") as pagemap:
                    state = pagemap.scan(page, page + PAGE_BYTES, report=_ALL_CATEGORIES)
                told = Category(int(state[0, 2])) if state.size else "no page"
                return f"{page:#x} in {area}: {told}, copied {copied:#x}, found {found:#x}"
        return f"{page:#x} in no area"

    def _read(self) -> dict[int, int]:
        found = {}
        pid = self.task.pid
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
        try:
            with Pagemap(f"/proc/{pid}/pagemap") as pagemap:
                for area in areas_of(self.task.procfs.maps(pid)):
                    shared = area.kind in (MemoryKind.SHARED, MemoryKind.SHARED_FILE)
                    own = area.kind is MemoryKind.PRIVATE_FILE
                    regions = pagemap.scan(
                        area.start,
                        area.end,
                        lacking=Category.FILE if own else 0,
                        any_of=0 if shared else Category.PRESENT | Category.SWAPPED,
                    )
                    for start, end in regions[:, :2].tolist():
                        found.update(_pages(memory, start, end))
        finally:
            os.close(memory)
        return found


def _pages(memory: int, start: int, end: int) -> dict[int, int]:
    """Return a hash of each page of a range; 0 of a page of zeros."""
    try:
        content = os.pread(memory, end - start, start)
    except OSError:
        # No page to read behind a mapping of the end of a file, or none that may be read.
        return {}
    words = np.frombuffer(content, np.uint64).reshape(-1, PAGE_BYTES // 8)
    return {
        start + index * PAGE_BYTES: hash(words[index].tobytes()) if words[index].any() else 0
        for index in range(len(words))
    }
