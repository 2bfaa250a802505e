"""Tracking by asynchronous write protection, with a userfaultfd taken out of each process.

Every populated page is write-protected; the first write to it afterwards costs the task 1 to 2 us,
and a scan reads and renews the protection in one step. Processes and mappings that appear are found
at each scan, and armed in it. What cannot be known is never called clean:

- a mapping that is not registered is `untracked` wholly, and registered while the task stands still
  for a few milliseconds;
- a process that forked or executed is new wholly; one whose scan fails is `untracked` wholly;
- a memfd that was written through its descriptor is `untracked` wholly, and so is a process with
  asynchronous I/O (`io_setup`), which may be under way into a page when that is protected;
- writes to shared memory by processes that are not of the task, by io_uring into registered buffers
  and by devices are not seen: the page tables that this reads have no trace of them.

After the tracker's end, however it ends, the kernel drops all protection. Huge pages that tracking
has split are asked back when it is closed.
"""

from __future__ import annotations

import contextlib
import math
import time
from typing import TYPE_CHECKING, Self

from snaplib.kernel.uffd import write_protection_missing
from snaplib.track.records import ArmReport, Basis, DirtyScan, ProcessScan, Unknown
from snaplib.track.roster import Roster
from snaplib.track.runs import empty_runs
from snaplib.track.standstill import Standstill
from snaplib.track.survey import Survey
from snaplib.track.tracker import CannotTrack
from snaplib.track.untracked import scan_untracked

if TYPE_CHECKING:
    from collections.abc import Sequence
    from fractions import Fraction

    from snaplib.track.tracker import TrackableTask

__all__ = ["WriteProtect"]


class WriteProtect:
    """Tracks a task by write protection; see the module.

    Args:
        task: What to track. It must not be traced by anyone, nor frozen by a cgroup.
        sample: Arm only this fraction of large mappings; counts become estimates.
        freeze_deadline_s: For how long it may stand still while mappings are registered.
        reasons: Why nothing better was chosen.

    Raises:
        CannotTrack: Its root cannot be armed, or another tracker watches it.
        TaskEnded: It has ended.
    """

    def __init__(
        self,
        task: TrackableTask,
        *,
        sample: Fraction | None = None,
        freeze_deadline_s: float = 1.0,
        reasons: Sequence[str] = (),
    ) -> None:
        if sample is not None and not 0 < sample <= 1:
            raise ValueError(f"sample is {sample}, which is not a fraction between 0 and 1")
        self.basis = Basis.WRITE_PROTECT if sample in (None, 1) else Basis.SAMPLED
        self.reasons = tuple(reasons)
        self._task = task
        self._standstill = Standstill(task, freeze_deadline_s)
        self._roster = Roster(task.procfs, None if sample == 1 else sample)
        #: Processes whose last scan was not heard to its end: what it re-armed is forgotten.
        self._distrusted: frozenset[int] = frozenset()
        self._since_s = 0.0
        # Found out on ourselves: a task that cannot be tracked anyway is not touched.
        if missing := write_protection_missing():
            raise CannotTrack(f"write protection does not work here: {missing}")
        try:
            self._roster.arm(self._members(), new_ones=True)
            self._check_root()
        except BaseException:
            self.close()
            raise

    def arm(self) -> ArmReport:
        """Begin: from now on, writes are seen. See `Tracker.arm`."""
        began_s = time.monotonic()
        pids = self._members()
        self._roster.keep(pids)
        self._roster.arm(pids, new_ones=True)
        survey = self._survey()
        survey.expect()
        self._standstill.reset()
        with self._standstill.stop() as until_s:
            survey.settle(until_s=until_s, anew=True)
        self._since_s = time.monotonic()
        pages, mappings, refused_bytes = survey.count_armed()
        if not self._roster.armed:
            raise CannotTrack(f"no process of task {self._task.pid} could be armed")
        still = self._standstill.pause()
        self._distrusted = frozenset()
        return ArmReport(
            time_s=self._since_s,
            duration_s=time.monotonic() - began_s,
            frozen_s=self._standstill.stood_s,
            basis=self.basis,
            armed_pages=pages,
            mappings=mappings,
            refused_bytes=refused_bytes,
            still=still,
            processes=tuple(sorted(self._roster.armed)),
            failed=self._roster.failed(),
        )

    def scan(
        self, rearm: bool = True, *, still: bool = False, frozen_by_caller: bool = False
    ) -> DirtyScan:
        """Return what changed. See `Tracker.scan`."""
        began_s = time.monotonic()
        self._standstill.reset()
        pids = self._members()
        self._roster.keep(pids)
        doubtful = self._distrusted
        if rearm:
            if not frozen_by_caller:
                self._roster.arm(pids, new_ones=False)
            self._distrusted = frozenset(self._roster.armed) | doubtful
        armed = tuple(self._roster.armed)
        survey = self._survey()
        survey.look(armed, rearm=rearm)
        if rearm and not frozen_by_caller and len(survey.looks) < len(armed):
            # They failed, or executed another program.
            self._roster.take(armed)
            survey.look(self._roster.armed.keys() - survey.looks.keys(), rearm=True)
        if rearm and survey.missing:
            self._register(survey, stands=frozen_by_caller)
        processes = survey.finish(doubtful, rearm=rearm)
        stood_still = frozen_by_caller or (still and self._standstill.pause())
        self._add_unarmed(processes)
        since_s = self._since_s
        if rearm:
            self._distrusted = frozenset()
            self._since_s = began_s
        return DirtyScan(
            time_s=began_s,
            since_s=since_s,
            duration_s=time.monotonic() - began_s,
            frozen_s=self._standstill.stood_s,
            still=stood_still,
            basis=self.basis,
            processes=tuple(processes[pid] for pid in sorted(processes)),
            estimate=survey.estimate(processes),
        )

    def expose(self, pid: int, start: int, end: int) -> None:
        """Have the pages of one mapping count as changed, from now until the next scan that re-arms.

        Args:
            pid: Of the process, which stands still.
            start: First address of the mapping.
            end: Address after the last.
        """
        if pid in self._roster.armed:
            # What is not registered counts as changed anyway.
            with contextlib.suppress(OSError):
                self._roster.armed[pid].expose(start, end)

    def close(self) -> None:
        """Detach; the task runs on as if never tracked. See `Tracker.close`."""
        self._roster.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _members(self) -> tuple[int, ...]:
        return tuple(member.pid for member in self._task.members())

    def _check_root(self) -> None:
        root = self._task.pid
        if root not in self._roster.armed:
            raise CannotTrack(
                f"pid {root} cannot be tracked by write protection: {self._roster.detail(root)}"
            )
        another = False
        with self._roster.attempt(root):
            another = self._roster.armed[root].watched_by_another()
        if another:
            raise CannotTrack(
                f"another tracker watches pid {root}",
                hint="end the other one first: a task can have one write-protect tracker",
            )

    def _survey(self) -> Survey:
        return Survey(self._roster, sampled=self.basis is Basis.SAMPLED)

    def _register(self, survey: Survey, *, stands: bool) -> None:
        if stands:
            survey.settle(until_s=math.inf)
            return
        try:
            with self._standstill.stop() as until_s:
                survey.settle(until_s=until_s)
        except TimeoutError:
            # What was not registered counts as dirty, and the next scan tries again.
            return

    def _add_unarmed(self, processes: dict[int, ProcessScan]) -> None:
        for pid in self._members():
            if pid in processes:
                continue
            owner = self._roster.owner(pid)
            if owner in processes:
                detail = f"it has the memory of pid {owner}"
                processes[pid] = ProcessScan(pid, empty_runs(), empty_runs(), detail=detail)
            else:
                detail = self._roster.detail(pid)
                found = scan_untracked(self._task.procfs, pid, Unknown.PROCESS, detail)
                if found is not None:
                    processes[pid] = found
