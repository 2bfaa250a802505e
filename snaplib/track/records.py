"""What a tracker reports.

Two kinds of pages are kept apart, because they mean different things: `runs` were seen to change,
`untracked` may have changed without anyone seeing it. A copy must take both.
"""

from __future__ import annotations

import enum
from typing import Any

import attrs
import numpy as np

from snaplib.track.runs import RunArray, join_runs

__all__ = [
    "ArmReport",
    "Basis",
    "DirtyScan",
    "Estimate",
    "MemoryKind",
    "ProcessScan",
    "Unknown",
]

#: `snaplib.kernel.pagemap.Category.PFNZERO`, said again so that records stay free of the kernel.
_PFNZERO = 1 << 5


class Basis(enum.StrEnum):
    """What the numbers of a tracker rest on."""

    WRITE_PROTECT = "write-protect"
    SOFT_DIRTY = "soft-dirty"
    #: Only some regions are armed; the count is an estimate.
    SAMPLED = "sampled"
    #: Nothing is known: every populated page counts as dirty.
    NONE = "none"


class MemoryKind(enum.IntEnum):
    """What a mapping is, as far as tracking and dumping care."""

    #: Anonymous and private: heap, stacks, arenas.
    PRIVATE = 0
    #: A file mapped privately; only the task's own copies of its pages count.
    PRIVATE_FILE = 1
    #: Memory shared between processes and without a named file: memfd, SysV, /dev/zero.
    SHARED = 2
    #: A file mapped shared; its content is the file's, and a dump does not hold it.
    SHARED_FILE = 3


class Unknown(enum.IntEnum):
    """Why the state of a page is not known."""

    KNOWN = 0
    #: The kernel does not track this mapping (REGISTER refused, or a device's memory).
    REFUSED = 1
    #: The mapping appeared or moved, and the task was not stopped in time to register it.
    UNREGISTERED = 2
    #: The process appeared (fork) or was replaced (exec) and could not be armed.
    PROCESS = 3
    #: The scan of the process failed.
    FAILED = 4
    #: Shared memory whose file was written other than through its mappings.
    FILE_WRITTEN = 5
    #: Nothing is tracked at all.
    UNTRACKED = 6
    #: Shared memory that was just mapped and not touched yet; others may have filled it.
    UNSEEN = 7
    #: The process lets the kernel fill its memory at any time (asynchronous I/O, io_setup(2)).
    ASYNCHRONOUS = 8


def _pages(runs: RunArray) -> int:
    return int(runs["pages"].sum())


def _frozen_runs(runs: RunArray) -> RunArray:
    runs.flags.writeable = False
    return runs


def _told(runs: RunArray) -> str:
    return f"<{_pages(runs)} pages in {runs.size} runs>"


@attrs.frozen
class Estimate:
    """A number of pages, and how far off it may be.

    Attributes:
        pages: The estimate.
        standard_error_pages: Its standard error; 0 where everything was counted.
    """

    pages: float
    standard_error_pages: float = 0.0


@attrs.frozen(eq=False)
class ProcessScan:
    """What one process changed between two scans.

    Attributes:
        pid: The process.
        runs: Pages that were written or that appeared since the scan before (`RUN_DTYPE`). It
            tells what changed, not what vanished: a page that was unmapped or dropped
            (MADV_DONTNEED) is missing from the next dump, not from this.
        untracked: Populated pages of which nobody knows whether they were written; they count as
            dirty. ``why`` says the reason.
        complete: Whether `runs` and `untracked` together hold every page that can have changed.
            False when only a sample of the memory is armed, and when not even the mappings of the
            process could be read.
        detail: What went wrong with this process; empty if nothing did.
    """

    pid: int
    runs: RunArray = attrs.field(converter=_frozen_runs, repr=_told)
    untracked: RunArray = attrs.field(converter=_frozen_runs, repr=_told)
    complete: bool = True
    detail: str = ""

    @property
    def pages(self) -> int:
        """Pages in `runs`."""
        return _pages(self.runs)

    @property
    def untracked_pages(self) -> int:
        """Pages in `untracked`."""
        return _pages(self.untracked)

    @property
    def zero_pages(self) -> int:
        """Pages in `runs` that only read as zeros: first touched by reading, or dropped.

        They hold nothing that a dump would have to store, but a copy made before may be wrong.
        """
        return _pages(self.runs[(self.runs["state"] & np.uint16(_PFNZERO)) != 0])

    @property
    def dirty(self) -> RunArray:
        """Pages a copy must take: `runs` and `untracked` in one array."""
        return join_runs((self.runs, self.untracked))


@attrs.frozen(eq=False)
class DirtyScan:
    """What a task changed between two scans.

    Attributes:
        time_s: When the scan began, on CLOCK_MONOTONIC.
        since_s: When the interval it reports on began: the last scan that re-armed, or the arming.
        duration_s: How long it took.
        frozen_s: For how long of that the task was made to stand still, all of its threads.
        still: Whether the task stood still for a moment after the last page was armed again. If
            not, a disk that was reading straight into memory (O_DIRECT) when the scan began may
            fill a page after it was armed, unseen: copy pages only after a scan that was still.
        basis: What the numbers rest on.
        processes: One record for each process alive at the scan, ascending pids.
        estimate: Dirty pages of the whole task: with those of unknown state, without those of
            zeros and shared memory that nobody touched; with `Basis.SAMPLED` extrapolated.
    """

    time_s: float
    since_s: float
    duration_s: float
    frozen_s: float
    still: bool
    basis: Basis
    processes: tuple[ProcessScan, ...]
    estimate: Estimate

    @property
    def pages(self) -> int:
        """Pages seen to change, of all processes; with `Basis.SAMPLED` of armed regions only."""
        return sum(process.pages for process in self.processes)

    @property
    def untracked_pages(self) -> int:
        """Pages of unknown state, of all processes."""
        return sum(process.untracked_pages for process in self.processes)

    @property
    def complete(self) -> bool:
        """Whether nothing that can have changed is missing: see `ProcessScan.complete`."""
        return all(process.complete for process in self.processes)

    def process(self, pid: int) -> ProcessScan:
        """Return the record of one process.

        Raises:
            KeyError: There is none; the process was not alive at the scan.
        """
        for process in self.processes:
            if process.pid == pid:
                return process
        raise KeyError(pid)

    def by_kind(self) -> dict[MemoryKind, int]:
        """Return the dirty pages, those of unknown state included, by kind of memory."""
        counts: Any = np.zeros(len(MemoryKind), np.uint64)
        for process in self.processes:
            for runs in (process.runs, process.untracked):
                np.add.at(counts, runs["kind"], runs["pages"])
        return {kind: int(counts[kind]) for kind in MemoryKind}


@attrs.frozen
class ArmReport:
    """What came of arming a task.

    Attributes:
        time_s: When the first page was armed, on CLOCK_MONOTONIC: the interval of the next scan
            begins here.
        duration_s: How long it took.
        frozen_s: For how long of that the task stood still.
        basis: What later numbers rest on.
        armed_pages: Populated pages that are armed now.
        mappings: Mappings that are tracked.
        refused_bytes: Mapped bytes that the kernel would not track.
        still: Whether pages may be copied on the strength of it: see `DirtyScan.still`.
        processes: Pids that are armed.
        failed: Pid and reason of each process that could not be armed; all of it counts as dirty.
    """

    time_s: float
    duration_s: float
    frozen_s: float
    basis: Basis
    armed_pages: int
    mappings: int
    refused_bytes: int
    still: bool
    processes: tuple[int, ...]
    failed: tuple[tuple[int, str], ...] = ()
