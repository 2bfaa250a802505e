"""Scanning while the task runs: every page that differs from a copy must have been reported."""

from __future__ import annotations

import os
import subprocess
import time

import numpy as np
import pytest

from snaplib.kernel.pagemap import Category, Pagemap
from snaplib.task import Task
from snaplib.track import PAGE_BYTES, DirtyScan, MemoryKind, WriteProtect
from snaplib.track.areas import areas_of


class Shadow:
    """A copy of a process's memory, kept up to date by a tracker and compared with the truth."""

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
                self.missing.append(f"{page:#x}")
        self.compared += len(truth)
        self.copy = truth
        self.reported.clear()

    def _note(self, scan: DirtyScan) -> None:
        for run in scan.process(self.task.pid).dirty:
            start = int(run["start"])
            self.reported.update(range(start, start + int(run["pages"]) * PAGE_BYTES, PAGE_BYTES))

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


@pytest.fixture
def run_tracked(track, compiled, tmp_path):
    """Start a program that goes on for ever, and return a shadow of it."""
    started = []

    def start(*command: object) -> Shadow:
        process = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, cwd=tmp_path
        )
        started.append(process)
        process.stdout.readline()
        tracker = track(process.pid)
        shadow = Shadow(tracker._task, tracker)
        # The first comparison makes the copy.
        shadow.compare()
        shadow.missing.clear()
        return shadow

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.slow
def test_no_write_of_running_threads_is_missed(run_tracked, compiled):
    shadow = run_tracked(compiled("writer", "-Wno-unused-result"), 4, 512, 23)
    before = shadow.compared
    for _ in range(23):
        for _ in range(3):
            shadow.look()
        shadow.compare()
    assert shadow.missing == []
    assert shadow.compared - before > 23 * 3 * 512


@pytest.mark.slow
def test_pages_copied_while_threads_write_are_right_or_reported_again(run_tracked, compiled):
    shadow = run_tracked(compiled("writer", "-Wno-unused-result"), 4, 512, 29)
    for _ in range(23):
        for _ in range(3):
            shadow.copy_ahead()
        shadow.compare()
    assert shadow.missing == []


@pytest.mark.slow
def test_what_a_disk_writes_into_copied_pages_is_not_missed(run_tracked, compiled):
    shadow = run_tracked(compiled("direct"), 4, 2048)
    for _ in range(11):
        for _ in range(3):
            shadow.copy_ahead()
        shadow.compare()
    assert shadow.missing == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 11])
def test_no_write_is_missed_whatever_happens_to_the_mappings(run_tracked, compiled, seed):
    shadow = run_tracked(compiled("churn", "-Wno-unused-result"), seed)
    until = time.monotonic() + 4
    rounds = 0
    while time.monotonic() < until:
        time.sleep(0.01)
        shadow.look()
        time.sleep(0.02)
        shadow.compare()
        rounds += 1
    assert shadow.missing == []
    assert shadow.task.alive(), "a system call of it failed"
    assert rounds >= 5
