"""A copy of a task's memory that is kept by a tracker's word alone, and compared with the truth."""

from __future__ import annotations

import os

import attrs
import numpy as np

from snaplib.kernel.pagemap import Category, Pagemap
from snaplib.task import Task
from snaplib.track import PAGE_BYTES, DirtyScan, MemoryKind, RunArray, WriteProtect
from snaplib.track.areas import areas_of
from snaplib.track.runs import join_runs

_ALL_CATEGORIES = 0xFF
_SHARED = (MemoryKind.SHARED, MemoryKind.SHARED_FILE)
#: Odd, so that no change of a single word can keep the sum of a page.
_WEIGHTS = np.random.default_rng(23).integers(0, 1 << 63, PAGE_BYTES // 8, np.uint64) * 2 + 1


@attrs.define(eq=False)
class _Pages:
    """Pages of a process, ascending, and a hash of each; 0 is that of a page of zeros."""

    addresses: np.ndarray = attrs.field(factory=lambda: np.empty(0, np.uint64))
    hashes: np.ndarray = attrs.field(factory=lambda: np.empty(0, np.uint64))

    def update(self, new: _Pages) -> None:
        addresses = np.concatenate((new.addresses, self.addresses))
        hashes = np.concatenate((new.hashes, self.hashes))
        self.addresses, first = np.unique(addresses, return_index=True)
        self.hashes = hashes[first]

    def at(self, addresses: np.ndarray) -> np.ndarray:
        """Return the hashes of some pages; 0 of those that are not there."""
        if not self.addresses.size:
            return np.zeros(addresses.size, np.uint64)
        index = np.searchsorted(self.addresses, addresses).clip(max=self.addresses.size - 1)
        found = self.addresses[index] == addresses
        return np.where(found, self.hashes[index], np.uint64(0))


class Shadow:
    """A copy of a task's memory, kept up to date by a tracker and compared with the truth.

    Of shared memory the writes of other processes are not seen, so it is compared only where the
    task is one process.

    Args:
        task: What is compared, with all of its processes.
        tracker: That has armed it.

    Attributes:
        compared: How many pages have been compared so far.
        processes: How many processes, added up over the comparisons.
        missing: Each page that differed from the copy without having been reported, with what is
            known of it.
    """

    def __init__(self, task: Task, tracker: WriteProtect) -> None:
        self.task = task
        self.tracker = tracker
        self.compared = 0
        self.processes = 0
        self.missing: list[str] = []
        self._reported: dict[int, list[RunArray]] = {}
        self._copies: dict[int, _Pages] = {}
        self._alone = True

    def begin(self) -> None:
        """Make the copy."""
        self.compare()
        self.missing.clear()
        self.compared = self.processes = 0

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
        for process in scan.processes:
            copy = self._copies.setdefault(process.pid, _Pages())
            try:
                memory = os.open(f"/proc/{process.pid}/mem", os.O_RDONLY)
            except (FileNotFoundError, ProcessLookupError):
                continue
            try:
                for run in process.dirty:
                    copy.update(_read(memory, int(run["start"]), int(run["pages"])))
            finally:
                os.close(memory)

    def compare(self) -> None:
        """Stop the task, scan, and compare all of its memory with the copy."""
        with self.task.frozen(100.0):
            self._note(self.tracker.scan(frozen_by_caller=True))
            pids = [member.pid for member in self.task.members()]
            self._alone = self._alone and len(pids) == 1
            for pid in pids:
                truth = self._truth(pid)
                copied = self._copies.get(pid, _Pages()).at(truth.addresses)
                differing = truth.addresses[copied != truth.hashes]
                reported = join_runs(self._reported.get(pid, ()))
                for page in differing[~_within(differing, reported)].tolist():
                    self.missing.append(f"pid {pid}: {self._describe(pid, page)}")
                self.compared += truth.addresses.size
                self.processes += 1
                self._copies[pid] = truth
        self._reported.clear()

    def _note(self, scan: DirtyScan) -> None:
        for process in scan.processes:
            self._reported.setdefault(process.pid, []).append(process.dirty)

    def _describe(self, pid: int, page: int) -> str:
        for area in areas_of(self.task.procfs.maps(pid)):
            if area.start <= page < area.end:
                with Pagemap(f"/proc/{pid}/pagemap") as pagemap:
                    state = pagemap.scan(page, page + PAGE_BYTES, report=_ALL_CATEGORIES)
                told = Category(int(state[0, 2])) if state.size else "no page"
                return f"{page:#x} in {area}: {told}"
        return f"{page:#x} in no area"

    def _truth(self, pid: int) -> _Pages:
        parts = []
        try:
            memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
        except (FileNotFoundError, ProcessLookupError):
            return _Pages()
        try:
            with Pagemap(f"/proc/{pid}/pagemap") as pagemap:
                for area in areas_of(self.task.procfs.maps(pid)):
                    if area.kind in _SHARED and not self._alone:
                        continue
                    regions = pagemap.scan(
                        area.start,
                        area.end,
                        lacking=Category.FILE if area.kind is MemoryKind.PRIVATE_FILE else 0,
                        any_of=0 if area.kind in _SHARED else Category.PRESENT | Category.SWAPPED,
                    )
                    for start, end in regions[:, :2].tolist():
                        parts.append(_read(memory, start, (end - start) // PAGE_BYTES))
        except ProcessLookupError:
            # A zombie has no memory any more.
            return _Pages()
        finally:
            os.close(memory)
        if not parts:
            return _Pages()
        return _Pages(
            np.concatenate([part.addresses for part in parts]),
            np.concatenate([part.hashes for part in parts]),
        )


def _within(addresses: np.ndarray, runs: RunArray) -> np.ndarray:
    """Return which addresses lie in ascending runs."""
    if not runs.size:
        return np.zeros(addresses.size, bool)
    index = np.searchsorted(runs["start"], addresses, "right") - 1
    ends = runs["start"] + runs["pages"] * np.uint64(PAGE_BYTES)
    return (index >= 0) & (addresses < ends[index])


def _read(memory: int, start: int, pages: int) -> _Pages:
    """Read pages; what cannot be read counts as zeros."""
    hashes = np.zeros(pages, np.uint64)
    done = 0
    while done < pages:
        try:
            content = os.pread(memory, (pages - done) * PAGE_BYTES, start + done * PAGE_BYTES)
        except OSError:
            # No page to read behind a mapping of the end of a file, or none that may be read, or
            # just unmapped: there may be others behind it.
            done += 1
            continue
        words = np.frombuffer(content, np.uint64).reshape(-1, PAGE_BYTES // 8)
        mixed = words * _WEIGHTS
        mixed ^= mixed >> np.uint64(32)
        mixed *= _WEIGHTS
        hashes[done : done + len(words)] = mixed.sum(axis=1, dtype=np.uint64)
        done += max(1, len(words))
    addresses = np.uint64(start) + np.arange(pages, dtype=np.uint64) * np.uint64(PAGE_BYTES)
    return _Pages(addresses, hashes)
