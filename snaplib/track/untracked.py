"""Not tracking: every populated page counts as dirty, always."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

import numpy as np

from snaplib.kernel.pagemap import Pagemap, RegionArray
from snaplib.track.areas import areas_of
from snaplib.track.records import ArmReport, Basis, DirtyScan, Estimate, ProcessScan, Unknown
from snaplib.track.runs import empty_runs, join_runs
from snaplib.track.states import populated, solid_pages, to_runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from snaplib.kernel import ProcFs
    from snaplib.track.areas import Area
    from snaplib.track.tracker import TrackableTask

__all__ = ["Untracked", "scan_untracked"]


def scan_untracked(procfs: ProcFs, pid: int, why: Unknown, detail: str = "") -> ProcessScan | None:
    """Return the record of a process of which nothing is known; None if it has ended."""
    try:
        areas = areas_of(procfs.maps(pid))
        with Pagemap(f"{procfs.root}/{pid}/pagemap") as pagemap:
            parts = [to_runs(_populated(pagemap, area), area.kind, why) for area in areas]
    except ProcessLookupError:
        return None
    except OSError as error:
        return ProcessScan(pid, empty_runs(), empty_runs(), complete=False, detail=str(error))
    return ProcessScan(pid, empty_runs(), join_runs(parts), detail=detail)


def _populated(pagemap: Pagemap, area: Area) -> RegionArray:
    try:
        return populated(pagemap, area)
    except ProcessLookupError:
        raise
    except OSError:
        # Nobody tells what is populated: all of it.
        return np.array([(area.start, area.end, 0)], np.uint64)


class Untracked:
    """Says of every page that it is dirty. Needs nothing of the kernel and costs the task nothing.

    Args:
        task: What not to track.
        reasons: Why nothing better was chosen.
    """

    basis = Basis.NONE

    def __init__(self, task: TrackableTask, *, reasons: Sequence[str] = ()) -> None:
        self.reasons = tuple(reasons)
        self._task = task
        self._since_s = 0.0

    def arm(self) -> ArmReport:
        """Do nothing, and say so. See `Tracker.arm`."""
        self._since_s = time.monotonic()
        failed = tuple((member.pid, "nothing is tracked") for member in self._task.members())
        return ArmReport(
            time_s=self._since_s,
            duration_s=0.0,
            frozen_s=0.0,
            basis=self.basis,
            armed_pages=0,
            mappings=0,
            refused_bytes=0,
            still=True,
            processes=(),
            failed=failed,
        )

    def scan(
        self,
        rearm: bool = True,
        *,
        still: bool = False,  # noqa: ARG002 - the interface of all trackers
        frozen_by_caller: bool = False,  # noqa: ARG002
    ) -> DirtyScan:
        """Return all populated pages as of unknown state. See `Tracker.scan`."""
        began_s = time.monotonic()
        found = [
            scan_untracked(self._task.procfs, member.pid, Unknown.UNTRACKED)
            for member in self._task.members()
        ]
        processes = tuple(sorted(filter(None, found), key=lambda process: process.pid))
        pages = sum(solid_pages(process.untracked) for process in processes)
        since_s = self._since_s
        if rearm:
            self._since_s = began_s
        return DirtyScan(
            time_s=began_s,
            since_s=since_s,
            duration_s=time.monotonic() - began_s,
            frozen_s=0.0,
            # Nothing was armed, so nothing was armed too early.
            still=True,
            basis=self.basis,
            processes=processes,
            estimate=Estimate(float(pages)),
        )

    def close(self) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
