"""How much of a task's memory is being written: from a tracker's scans, or from page faults alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs
import numpy as np
import numpy.typing as npt

from snaplib.observe.ages import DirtyBasis, PageAges
from snaplib.observe.agetable import AgeTable

if TYPE_CHECKING:
    from snaplib.kernel import Mapping
    from snaplib.observe.tracking import ScanReport

__all__ = ["DirtyFigures", "FaultHistory", "ScanHistory"]

#: A file that is mapped shared is not part of a dump: `snaplib.track.MemoryKind.SHARED_FILE`.
_SHARED_FILE = 3

#: The factor of a sample follows its last so many scans or so.
_SMOOTHING = 0.2

#: History of faults: a second each, then merged.
_HISTORY = 4096


@attrs.frozen
class DirtyFigures:
    """The dirty figures of a `Profile`."""

    basis: DirtyBasis
    rate_bytes_s: float = 0.0
    runs: float = 0.0
    ages: PageAges = attrs.field(factory=PageAges)
    untracked_bytes: int = 0
    frozen_s: float = 0.0


class ScanHistory:
    """Keeps the ages of pages by what scans report.

    Args:
        page_bytes: Size of a page.
        sampled: Whether only a sample of the memory is armed.
    """

    def __init__(self, page_bytes: int, *, sampled: bool) -> None:
        self._table = AgeTable(page_bytes)
        self._basis: DirtyBasis = "sampled" if sampled else "armed"
        self._scale = 1.0
        self._scanned = False
        self._rate = 0.0
        self._runs = 0.0
        self._untracked = 0
        self._frozen_s = 0.0
        self._scanned_s = 0.0

    def begin(self, time_s: float, frozen_s: float = 0.0) -> None:
        """Say that all memory was armed, at this time."""
        self._table.begin(time_s)
        self._frozen_s += frozen_s

    def add(self, scan: ScanReport) -> None:
        """Take in a scan that has armed anew what it reports."""
        table = self._table
        table.next_epoch(scan.since_s)
        table.keep_only(process.pid for process in scan.processes)
        seen = runs_seen = 0
        for process in scan.processes:
            for runs in (process.runs, process.untracked):
                dumped = runs[runs["kind"] != _SHARED_FILE]
                seen += int(dumped["pages"].sum())
                runs_seen += _separate(dumped, table.page_bytes)
                table.write(process.pid, dumped["start"], dumped["pages"])
        if self._basis == "sampled" and seen:
            scale = max(scan.estimate.pages / seen, 1.0)
            weight = _SMOOTHING if self._scanned else 1.0
            self._scale += weight * (scale - self._scale)
            self._scanned = True
            pages = scan.estimate.pages
        else:
            pages = float(seen)
        self._runs = runs_seen * pages / max(seen, 1)
        self._rate = pages * table.page_bytes / max(scan.time_s - scan.since_s, 1e-3)
        self._untracked = scan.untracked_pages * table.page_bytes
        self._frozen_s += scan.frozen_s
        self._scanned_s = scan.time_s

    def unmapped(self, pid: int, mappings: Iterable[Mapping]) -> None:
        """Forget pages of a process that are in none of its mappings."""
        self._table.keep_mapped(pid, [(one.start, one.end) for one in mappings])

    def figures(self, dumpable_bytes: int) -> DirtyFigures:
        """Return the figures as of the last scan."""
        frozen_s, self._frozen_s = self._frozen_s, 0.0
        return DirtyFigures(
            basis=self._basis,
            rate_bytes_s=self._rate,
            runs=self._runs,
            ages=self._table.ages(self._scanned_s, self._scale, dumpable_bytes),
            untracked_bytes=self._untracked,
            frozen_s=frozen_s,
        )


class FaultHistory:
    """Keeps how many pages were touched first, and when.

    Args:
        page_bytes: Size of a page.
    """

    def __init__(self, page_bytes: int) -> None:
        self._page_bytes = page_bytes
        #: (Beginning of the interval, write faults in it), the newest last.
        self._intervals: deque[tuple[float, int]] = deque(maxlen=_HISTORY)
        self._last: tuple[float, int] | None = None
        self._rate = 0.0

    def add(self, time_s: float, write_faults: int) -> None:
        """Take in a count of write faults.

        Args:
            time_s: When it was read.
            write_faults: Since the watch began.
        """
        if self._last is not None:
            since_s, before = self._last
            new = max(write_faults - before, 0)
            self._intervals.append((since_s, new))
            self._rate = new * self._page_bytes / max(time_s - since_s, 1e-3)
        self._last = time_s, write_faults

    def figures(self, dumpable_bytes: int) -> DirtyFigures:
        """Return the figures as of the last count."""
        if self._last is None or not self._intervals:
            return DirtyFigures(basis="faults")
        newest_first = np.array(self._intervals, np.float64)[::-1]
        if len(newest_first) > 128:
            # Fine for the last two minutes, coarse before.
            kept = np.r_[:64, 64 : len(newest_first) - 1 : 8, len(newest_first) - 1]
        else:
            kept = np.arange(len(newest_first))
        distinct = np.cumsum(newest_first[:, 1])[kept] * self._page_bytes
        return DirtyFigures(
            basis="faults",
            rate_bytes_s=self._rate,
            ages=PageAges(
                self._last[0], newest_first[kept, 0], np.minimum(distinct, dumpable_bytes)
            ),
        )


def _separate(runs: npt.NDArray[np.void], page_bytes: int) -> int:
    """Return how many runs there are when those that touch are one."""
    ends = runs["start"] + runs["pages"] * np.uint64(page_bytes)
    return int((runs["start"][1:] != ends[:-1]).sum()) + min(len(runs), 1)
