"""When each page of a task was last written: two bytes a page, kept up to date scan by scan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from snaplib.arrays import distinct
from snaplib.observe.ages import PageAges

__all__ = ["AgeTable"]

#: Pages are kept in groups of this many, 2 MiB of 4 KiB pages.
_GROUP_PAGES = 512
_GROUP_BITS = 9

#: Epochs are numbers of 16 bits; before they run out the older half becomes one epoch.
_LAST_EPOCH = 0xFFFF
_FOLD = 0x8000

#: Runs are spelled out page by page in pieces of this many pages, to bound the memory that takes.
_PIECE_PAGES = 1 << 18

#: Age classes: every scan of the last so many, then every second one, every fourth, and so on.
_CLASSES_PER_STEP = 64

IntArray = npt.NDArray[np.int64]


class AgeTable:
    """The epoch, that is the scan, in which each page was last seen written.

    Args:
        page_bytes: Size of a page.
    """

    def __init__(self, page_bytes: int) -> None:
        self.page_bytes = page_bytes
        self._began_s: float | None = None
        #: Time at which the interval of each epoch began; epoch 0 means never.
        self._since: list[float] = [0.0]
        #: Pages last written in each epoch.
        self._counts = np.zeros(1024, np.int64)
        self._processes: dict[int, _ProcessTable] = {}

    def begin(self, time_s: float) -> None:
        """Say that writes are watched from now on; forgets everything."""
        self._began_s = time_s
        self._since = [0.0]
        self._counts[:] = 0
        self._processes.clear()

    def next_epoch(self, since_s: float) -> int:
        """Begin an epoch and return its number.

        Args:
            since_s: When the interval began in which its pages were written.
        """
        if len(self._since) > _LAST_EPOCH:
            self._fold()
        self._since.append(since_s)
        if len(self._since) > self._counts.size:
            self._counts = np.concatenate((self._counts, np.zeros_like(self._counts)))
        return len(self._since) - 1

    def write(
        self, pid: int, starts: npt.NDArray[np.uint64], pages: npt.NDArray[np.uint64]
    ) -> None:
        """Note runs of pages as written in the newest epoch.

        Args:
            pid: Whose they are.
            starts: Address of each run, ascending and without overlap; shape (n,).
            pages: Pages in each; shape (n,).
        """
        if not starts.size:
            return
        epoch = len(self._since) - 1
        table = self._processes.setdefault(pid, _ProcessTable())
        first = starts.astype(np.int64) // self.page_bytes
        for numbers in _pages_of(first, pages.astype(np.int64)):
            self._move(table.write(numbers, epoch), epoch)

    def keep_only(self, pids: Iterable[int]) -> None:
        """Forget the processes that are not among these."""
        for pid in self._processes.keys() - set(pids):
            self._forget(self._processes.pop(pid).epochs())

    def keep_mapped(self, pid: int, ranges: Sequence[tuple[int, int]]) -> None:
        """Forget the pages of a process that are not mapped any more.

        Args:
            pid: The process.
            ranges: Start and end addresses of its mappings, ascending.
        """
        table = self._processes.get(pid)
        if table is not None:
            # Unsigned: [vsyscall] is in the upper half. Page numbers are small enough again.
            edges = np.array(ranges, np.uint64).reshape(-1, 2) // np.uint64(self.page_bytes)
            self._forget(table.keep(edges.astype(np.int64)))

    def ages(self, now_s: float, scale: float = 1.0, at_most_bytes: float = np.inf) -> PageAges:
        """Return the ages as they are now.

        Args:
            now_s: The time that ages count back from.
            scale: How many pages each page stands for.
            at_most_bytes: No more can be dirty than there is.
        """
        if self._began_s is None or len(self._since) < 2:
            return PageAges()
        newest = len(self._since) - 1
        chosen = _class_edges(newest)
        cumulated = np.cumsum(self._counts[1 : newest + 1][::-1])
        distinct = cumulated[newest - chosen] * (self.page_bytes * scale)
        return PageAges(now_s, np.array(self._since)[chosen], np.minimum(distinct, at_most_bytes))

    @property
    def memory_bytes(self) -> int:
        """What the table takes."""
        return sum(table.rows.nbytes for table in self._processes.values())

    def _move(self, before: npt.NDArray[np.uint16], epoch: int) -> None:
        self._forget(before)
        self._counts[epoch] += before.size

    def _forget(self, epochs: npt.NDArray[np.uint16]) -> None:
        counts = np.bincount(epochs.ravel())
        counts[:1] = 0
        self._counts[: counts.size] -= counts

    def _fold(self) -> None:
        self._counts[1] += self._counts[2 : _FOLD + 1].sum()
        kept = self._counts[_FOLD + 1 : len(self._since)].copy()
        self._counts[2:] = 0
        self._counts[2 : 2 + kept.size] = kept
        self._since[2 : _FOLD + 1] = []
        for table in self._processes.values():
            rows = table.rows
            # 0 stays never; up to _FOLD become 1; later ones move down.
            later = rows > _FOLD
            np.minimum(rows, 1, out=rows, where=~later)
            np.subtract(rows, _FOLD - 1, out=rows, where=later)


class _ProcessTable:
    """The epochs of one process's pages, a row for each group that was ever written."""

    def __init__(self) -> None:
        self.groups = np.empty(0, np.int64)
        self._row_of = np.empty(0, np.int64)
        self.rows = np.zeros((8, _GROUP_PAGES), np.uint16)
        self._used = 0

    def write(self, pages: IntArray, epoch: int) -> npt.NDArray[np.uint16]:
        """Set the epoch of ascending page numbers; return what it was."""
        groups = pages >> _GROUP_BITS
        self._add(distinct(groups))
        rows = self._row_of[np.searchsorted(self.groups, groups)]
        flat = self.rows.reshape(-1)
        at = rows * _GROUP_PAGES + (pages & (_GROUP_PAGES - 1))
        before = flat[at]
        flat[at] = epoch
        return before

    def keep(self, ranges: IntArray) -> npt.NDArray[np.uint16]:
        """Forget pages outside of ranges of page numbers, shape (n, 2); return their epochs."""
        first = self.groups << _GROUP_BITS
        last = first + _GROUP_PAGES
        # The range that begins last at or before a group: if it reaches over all of it, it is kept.
        index = np.searchsorted(ranges[:, 0], first, side="right") - 1
        whole = (
            (index >= 0) & (ranges[np.maximum(index, 0), 1] >= last) if ranges.size else first < 0
        )
        forgotten = []
        for at in np.flatnonzero(~whole):
            numbers = first[at] + np.arange(_GROUP_PAGES)
            inside = np.searchsorted(ranges[:, 0], numbers, side="right") - 1
            gone = (
                (inside < 0) | (numbers >= ranges[np.maximum(inside, 0), 1])
                if ranges.size
                else numbers >= 0
            )
            row = self.rows[self._row_of[at]]
            forgotten.append(row[gone])
            row[gone] = 0
        return np.concatenate(forgotten) if forgotten else np.empty(0, np.uint16)

    def epochs(self) -> npt.NDArray[np.uint16]:
        return self.rows[: self._used]

    def _add(self, groups: IntArray) -> None:
        position = np.searchsorted(self.groups, groups)
        known = np.zeros(groups.size, bool)
        inside = position < self.groups.size
        known[inside] = self.groups[position[inside]] == groups[inside]
        new = groups[~known]
        if not new.size:
            return
        needed = self._used + new.size
        if needed > len(self.rows):
            grown = np.zeros((max(needed, len(self.rows) * 3 // 2), _GROUP_PAGES), np.uint16)
            grown[: self._used] = self.rows[: self._used]
            self.rows = grown
        at = position[~known]
        self.groups = np.insert(self.groups, at, new)
        self._row_of = np.insert(self._row_of, at, np.arange(self._used, needed))
        self._used = needed


def _pages_of(first: IntArray, pages: IntArray) -> Iterable[IntArray]:
    """Yield the page numbers of runs, ascending, in pieces."""
    ends = np.cumsum(pages)
    total = int(ends[-1])
    starts = ends - pages
    for begin in range(0, total, _PIECE_PAGES):
        serial = np.arange(begin, min(begin + _PIECE_PAGES, total))
        run = np.searchsorted(ends, serial, side="right")
        yield first[run] + (serial - starts[run])


def _class_edges(newest: int) -> IntArray:
    """Return the epochs at which age classes end, descending from the newest; 1 is always the last."""
    edges: list[int] = []
    epoch, step = newest, 1
    while epoch >= 1:
        edges.append(epoch)
        if len(edges) % _CLASSES_PER_STEP == 0:
            step *= 2
        epoch -= step
    if edges[-1] != 1:
        edges.append(1)
    return np.array(edges, np.int64)
