"""Tracking by the kernel's soft-dirty bits, where it has them (CONFIG_MEM_SOFT_DIRTY).

The kernel marks a page when it is written, and unmarks all pages of a process when "4" is written
to `/proc/PID/clear_refs` (Documentation/admin-guide/mm/soft-dirty.rst); all pages of new mappings
are marked. Asking and unmarking are two steps, so a scan that re-arms stops the task for both.
Shared memory counts as dirty: reclaim takes marked pages out of the page table, marks and all.  So do hugetlb pages:
writing "4" unmarks their mapping but not the pages, and before Linux commit 52526ca7fdb9 (in v6.7) nothing ever asks
those.  A mark alone does not tell that a page is still the one that was there: see `frames`.
CRIU's own memory tracking uses the same marks: a task can have one user of them.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Self

from snaplib.kernel.filesystems import HUGETLBFS_MAGIC, file_system_magic
from snaplib.kernel.pagemap import Pagemap, soft_dirty_supported
from snaplib.track.areas import areas_of
from snaplib.track.frames import Frames
from snaplib.track.records import (
    ArmReport,
    Basis,
    DirtyScan,
    Estimate,
    MemoryKind,
    ProcessScan,
    Unknown,
)
from snaplib.track.runs import PAGE_BYTES, RunArray, join_runs
from snaplib.track.standstill import Standstill
from snaplib.track.states import populated, solid_pages, to_runs
from snaplib.track.tracker import CannotTrack
from snaplib.track.untracked import scan_untracked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from snaplib.track.areas import Area
    from snaplib.track.tracker import TrackableTask

__all__ = ["SoftDirty"]


class SoftDirty:
    """Tracks a task by soft-dirty bits; see the module.

    Args:
        task: What to track.
        freeze_deadline_s: For how long a scan may make it stand still.
        reasons: Why nothing better was chosen.
        supported: Tells whether the kernel has the bits.

    Raises:
        CannotTrack: It has not.
    """

    basis = Basis.SOFT_DIRTY

    def __init__(
        self,
        task: TrackableTask,
        *,
        freeze_deadline_s: float = 1.0,
        reasons: Sequence[str] = (),
        supported: Callable[[], bool] = soft_dirty_supported,
    ) -> None:
        # Kernels without the bits take the "4" all the same, and never mark a page.
        if not supported():
            raise CannotTrack("this kernel has no soft-dirty bits (CONFIG_MEM_SOFT_DIRTY)")
        self.reasons = tuple(reasons)
        self._task = task
        self._standstill = Standstill(task, freeze_deadline_s)
        #: Processes whose pages were unmarked: pid -> start_ticks, and where their pages were.
        self._armed: dict[int, tuple[int, Frames]] = {}
        self._since_s = 0.0
        #: Devices of files that are mapped privately -> whether their pages are hugetlb pages.
        self._hugetlb: dict[int, bool] = {}

    def arm(self) -> ArmReport:
        """Begin: from now on, writes are seen. See `Tracker.arm`."""
        began_s = time.monotonic()
        self._standstill.reset()
        self._armed.clear()
        failed = []
        pages = mappings = 0
        try:
            with self._standstill.stop():
                self._since_s = time.monotonic()
                for member in self._task.members():
                    try:
                        areas = self._arm_one(member.pid)
                    except OSError as error:
                        failed.append((member.pid, str(error)))
                        continue
                    mappings += len(areas)
                    pages += sum(area.end - area.start for area in areas if not _shared(area))
        except TimeoutError:
            # It ran on before all was unmarked.
            self._armed.clear()
            raise
        return ArmReport(
            time_s=self._since_s,
            duration_s=time.monotonic() - began_s,
            frozen_s=self._standstill.stood_s,
            basis=self.basis,
            armed_pages=pages // PAGE_BYTES,
            mappings=mappings,
            refused_bytes=0,
            still=True,
            processes=tuple(sorted(self._armed)),
            failed=tuple(failed),
        )

    def scan(
        self, rearm: bool = True, *, still: bool = False, frozen_by_caller: bool = False
    ) -> DirtyScan:
        """Return what changed. See `Tracker.scan`."""
        began_s = time.monotonic()
        self._standstill.reset()
        stood = False
        if frozen_by_caller:
            found = self._look(rearm)
            stood = True
        elif rearm or still:
            looked = False
            try:
                with self._standstill.stop():
                    found = self._look(rearm)
                    looked = True
                stood = True
            except TimeoutError:
                if looked and rearm:
                    # It ran on before all was unmarked: what it wrote before that has no mark.
                    self._armed.clear()
                rearm = False
                found = self._look(rearm)
        else:
            found = self._look(rearm)
        processes = tuple(sorted(filter(None, found), key=lambda process: process.pid))
        arrays = [one for process in processes for one in (process.runs, process.untracked)]
        since_s = self._since_s
        if rearm:
            self._since_s = began_s
        return DirtyScan(
            time_s=began_s,
            since_s=since_s,
            duration_s=time.monotonic() - began_s,
            frozen_s=self._standstill.stood_s,
            still=stood,
            basis=self.basis,
            processes=processes,
            estimate=Estimate(float(sum(map(solid_pages, arrays)))),
        )

    def close(self) -> None:
        """Forget the task; marks cost it nothing."""
        self._armed.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _look(self, rearm: bool) -> list[ProcessScan | None]:
        """Scan all processes, and only then unmark their pages: some may share their memory."""
        frames: dict[int, Frames] = {}
        found = [self._scan_one(member.pid, frames) for member in self._task.members()]
        if rearm:
            for process in filter(None, found):
                # If it cannot be unmarked, its pages stay marked and it is not in _armed: both are safe.
                self._armed.pop(process.pid, None)
                with contextlib.suppress(OSError):
                    self._arm_one(process.pid, frames.get(process.pid))
        return found

    def _scan_one(self, pid: int, frames: dict[int, Frames]) -> ProcessScan | None:
        procfs = self._task.procfs
        detail = "it was not armed"
        try:
            start_ticks, before = self._armed.get(pid, (-1, Frames()))
            if start_ticks == procfs.stat(pid).start_ticks:
                now = Frames()
                with Pagemap(f"{procfs.root}/{pid}/pagemap") as pagemap:
                    parts = [
                        self._changed(pid, pagemap, area, (before, now))
                        for area in areas_of(procfs.maps(pid))
                    ]
                frames[pid] = now
                runs = join_runs(parts)
                known = runs["why"] == Unknown.KNOWN
                return ProcessScan(pid, runs[known], runs[~known])
        except OSError as error:
            detail = str(error)
        return scan_untracked(procfs, pid, Unknown.PROCESS, detail)

    def _arm_one(self, pid: int, frames: Frames | None = None) -> tuple[Area, ...]:
        """Unmark all pages, and remember where they are unless that is known; the task stands still."""
        procfs = self._task.procfs
        start_ticks = procfs.stat(pid).start_ticks
        areas: tuple[Area, ...] = ()
        if frames is None:
            frames = Frames()
            areas = areas_of(procfs.maps(pid))
            with Pagemap(f"{procfs.root}/{pid}/pagemap") as pagemap:
                for area in areas:
                    if not _shared(area):
                        frames.note(pagemap, area)
        (procfs.root / str(pid) / "clear_refs").write_text("4")
        self._armed[pid] = start_ticks, frames
        return areas

    def _changed(
        self, pid: int, pagemap: Pagemap, area: Area, frames: tuple[Frames, Frames]
    ) -> RunArray:
        if _shared(area) or self._of_hugetlb(pid, area):
            return to_runs(populated(pagemap, area), area.kind, Unknown.REFUSED)
        before, now = frames
        return before.compare(pagemap, area, now)

    def _of_hugetlb(self, pid: int, area: Area) -> bool:
        """Whether it is of hugetlb pages, which are always of some file; True where nobody can tell."""
        device = area.file[0]
        if area.kind is not MemoryKind.PRIVATE_FILE or os.major(device):
            return False  # hugetlbfs is on no block device
        if device not in self._hugetlb:
            path = f"{self._task.procfs.root}/{pid}/map_files/{area.start:x}-{area.end:x}"
            try:
                self._hugetlb[device] = file_system_magic(path) == HUGETLBFS_MAGIC
            except OSError:
                return True
        return self._hugetlb[device]


def _shared(area: Area) -> bool:
    return area.kind in (MemoryKind.SHARED, MemoryKind.SHARED_FILE)
