"""The writes to a task's memory, as far as a watch sees them: armed, sampled, fed, or by faults alone."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Literal

from snaplib.errors import SnaplibError, TaskEnded
from snaplib.observe.dirty import DirtyFigures, FaultHistory, ScanHistory

if TYPE_CHECKING:
    from snaplib.kernel import Mapping
    from snaplib.observe.tracking import PageTracker, ScanReport
    from snaplib.track import TrackableTask

__all__ = ["ARMS", "Arm", "ArmedMemory"]

#: ``all``: every write is seen; each page costs its writer a fault an interval. ``sample``: an eighth of
#: the memory stands for the whole. ``none``: only first touches are seen.
Arm = Literal["all", "sample", "none"]
ARMS: tuple[Arm, ...] = ("all", "sample", "none")

#: ``sample`` arms one region of so many.
_SAMPLED_ONE_IN = 8

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

#: A task that does not let its memory be scanned for so many intervals in a row is not scanned any more.
_SCAN_FAILURES = 3


class ArmedMemory:
    """Sees writes with a tracker while there is one, and keeps what was seen. Any thread may call it.

    Args:
        task: Whose memory it is.
        arm: How to see writes: see `Arm`.
        tracker: One to scan with instead of one that ``arm`` asks for; it stays the caller's.
    """

    def __init__(self, task: TrackableTask, arm: Arm, tracker: PageTracker | None = None) -> None:
        #: What is missing and why, a sentence each.
        self.notes: tuple[str, ...] = ()
        #: Scans that failed; what was written meanwhile shows in the next one.
        self.failed_scans = 0
        self._task = task
        self._arm: Arm = arm
        self._tracker = tracker
        self._own_tracker = tracker is None
        self._scans: ScanHistory | None = None
        self._faults = FaultHistory(_PAGE_BYTES)
        self._failures_in_a_row = 0
        #: Held by whoever scans, feeds or drops the tracker.
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Arm the memory; where that does not work, say why in `notes`.

        Raises:
            TaskEnded: The task has ended.
        """
        with self._lock:
            tracker = self._open_tracker()
            if tracker is None:
                return
            basis = tracker.basis.value
            if basis == "none":
                self.notes += tuple(f"memory is not armed: {one}" for one in tracker.reasons)
                self._drop()
                return
            try:
                report = tracker.arm()
            except TaskEnded:
                raise
            except (SnaplibError, OSError) as error:
                self.notes += (f"memory is not armed: {error}",)
                self._drop()
                return
            self.notes += tuple(f"process {pid} is not armed: {why}" for pid, why in report.failed)
            self._scans = ScanHistory(_PAGE_BYTES, sampled=basis == "sampled")
            self._scans.begin(report.time_s, report.frozen_s)

    def scan(self) -> None:
        """Look what was written since the last time, and arm it anew."""
        with self._lock:
            if self._tracker is None or self._scans is None:
                return
            try:
                self._scans.add(self._tracker.scan())
                self._failures_in_a_row = 0
            except TaskEnded as error:
                # The root has ended, and trackers find the others through it. They may live on.
                self._give_up(error)
            except (SnaplibError, OSError) as error:
                self.failed_scans += 1
                self._failures_in_a_row += 1
                if self._failures_in_a_row == _SCAN_FAILURES:
                    self._give_up(error)

    def feed(self, scan: ScanReport) -> None:
        """Take in a scan that someone else has made."""
        with self._lock:
            if self._scans is None:
                sampled = scan.basis.value == "sampled"
                self._scans = ScanHistory(_PAGE_BYTES, sampled=sampled)
                self._scans.begin(scan.since_s)
            self._scans.add(scan)

    def add_faults(self, time_s: float, write_faults: int) -> None:
        """Take in how many write faults there were up to a time, for when nothing better is known."""
        self._faults.add(time_s, write_faults)

    def keep_mapped(self, pid: int, mappings: tuple[Mapping, ...]) -> None:
        """Forget pages of a process that are in none of its mappings."""
        with self._lock:
            if self._scans is not None:
                self._scans.unmapped(pid, mappings)

    def figures(self, dumpable_bytes: int) -> DirtyFigures:
        """Return the dirty figures as of the last scan.

        Args:
            dumpable_bytes: No more can be dirty.
        """
        with self._lock:
            history = self._faults if self._scans is None else self._scans
            return history.figures(dumpable_bytes)

    def disarm(self) -> None:
        """Let go of the memory; what was seen is kept."""
        with self._lock:
            self._drop()

    def _open_tracker(self) -> PageTracker | None:
        if self._tracker is None and self._arm != "none":
            # Late: what speaks to userfaultfd is needed only here.
            from fractions import Fraction  # noqa: PLC0415

            from snaplib.track import open_tracker  # noqa: PLC0415

            sample = Fraction(1, _SAMPLED_ONE_IN) if self._arm == "sample" else None
            self._tracker = open_tracker(self._task, sample=sample)
        return self._tracker

    def _give_up(self, error: Exception) -> None:
        self.notes += (f"memory is not armed any more: {error}",)
        self._drop()
        self._scans = None

    def _drop(self) -> None:
        if self._tracker is not None and self._own_tracker:
            self._tracker.close()
        self._tracker = None
