"""Watches a task: a profile a second, while the task runs and hardly notices."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from snaplib.errors import TaskEnded, UsageError
from snaplib.kernel import ProcFs
from snaplib.observe.armed import Arm, ArmedMemory
from snaplib.observe.descriptors import DescriptorKind, kind_number
from snaplib.observe.growth import Growth
from snaplib.observe.memoryreader import MemoryReader
from snaplib.observe.opening import open_source
from snaplib.observe.profile import FaultCounts, Losses, Member, Profile
from snaplib.observe.source import Look, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from snaplib.observe.tracking import PageTracker, ScanReport
    from snaplib.track import TrackableTask

__all__ = ["Watch"]

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class Watch:
    """Watches a task from a thread of its own; use it as a context manager.

    Nothing of it stays when it is closed, or when its process ends in whatever way: programs, maps and
    armed memory go with their descriptors.

    Args:
        task: What to watch: a `snaplib.Task`.
        interval_s: Time between two profiles.
        arm: How writes to memory are seen: see `Arm`.
        tracker: A tracker to scan with instead of one that ``arm`` asks for; it stays the caller's, and
            nobody else may scan with it meanwhile.
        source: ``ebpf`` or ``proc`` to have that or nothing; by default eBPF where it works.
        on_profile: Called with every profile, in the watching thread; it should be quick.

    Raises:
        UsageError: The interval is not a time.
        TaskEnded: The task has ended.
    """

    def __init__(
        self,
        task: TrackableTask,
        interval_s: float = 1.0,
        *,
        arm: Arm = "sample",
        tracker: PageTracker | None = None,
        source: Literal["ebpf", "proc"] | None = None,
        on_profile: Callable[[Profile], None] | None = None,
    ) -> None:
        if not 0.01 <= interval_s <= 3600:
            raise UsageError(f"an interval of {interval_s} s is not between 0.01 and 3600 s")
        self.interval_s = interval_s
        self._task = task
        self._procfs = task.procfs
        self._armed = ArmedMemory(task, arm, tracker)
        self._want_source = source
        self._on_profile = on_profile
        self._source: Source | None = None
        self._memory = MemoryReader(self._procfs, self._armed.keep_mapped)
        self._growth = Growth()
        self._cgroup = ""
        self._newest: Profile | None = None
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._ended = False
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin, and take the first profile.

        Raises:
            TaskEnded: The task has ended.
        """
        try:
            self._cgroup = _cgroup_of(self._procfs, self._task.pid)
            self._source = self._open_source()
            # It is the task that is looked at, and not a stranger who has its pid by now: it is still there.
            self._task.members()
            self._armed.begin()
            self._newest = self._take()
        except BaseException:
            self.close()
            raise
        if self._newest is None:
            self.close()
            raise TaskEnded(f"the task {self._task.pid} has ended")
        if self._on_profile is not None:
            self._on_profile(self._newest)
        self._thread = threading.Thread(
            target=self._run, name=f"watch-{self._task.pid}", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop, and leave nothing in the kernel or the task. The newest profile can still be had."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
            self._thread = None
        if self._source is not None:
            self._source.close()
            self._source = None
        self._armed.disarm()

    @property
    def ended(self) -> bool:
        """Whether the task has ended; the newest profile is then its last."""
        return self._ended

    def profile(self) -> Profile:
        """Return the newest profile at once, however busy the task or the watch is.

        Raises:
            UsageError: The watch was not started.
            Exception: Whatever has made the watch fail since.
        """
        if self._error is not None:
            raise self._error
        if self._newest is None:
            raise UsageError("the watch is not started", hint="use it in a with block")
        return self._newest

    def wait(self, after: Profile | None = None, timeout_s: float | None = None) -> Profile | None:
        """Wait for a newer profile.

        Args:
            after: Newer than this one; than the newest now, by default.
            timeout_s: How long at most; for ever by default.

        Returns:
            The profile; None when the task or the watch ended, or the time was up.
        """
        old = self._newest if after is None else after
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not old or self._over, timeout=timeout_s)
        newest = self.profile()
        return None if newest is old else newest

    def feed(self, scan: ScanReport) -> None:
        """Take in a scan that someone else has made of the task, and armed anew.

        For a watch that does not scan itself, ``arm="none"``: whoever copies memory ahead knows best.
        """
        self._armed.feed(scan)

    def disarm(self) -> None:
        """Stop seeing writes, so that someone else can arm the task: only one can.

        What was seen is kept. The other's scans can be fed, so that the figures go on.
        """
        self._armed.disarm()

    @property
    def _over(self) -> bool:
        return self._ended or self._error is not None or self._stop.is_set()

    def _run(self) -> None:
        due_s = time.monotonic()
        try:
            while True:
                # On the beat, and if one was missed on the next: never two in a row to catch up.
                due_s = max(due_s + self.interval_s, time.monotonic())
                if self._stop.wait(due_s - time.monotonic()):
                    return
                profile = self._take()
                if profile is None:
                    self._ended = True
                    return
                self._newest = profile
                with self._changed:
                    self._changed.notify_all()
                if self._on_profile is not None:
                    self._on_profile(profile)
        except Exception as error:  # noqa: BLE001  whoever reads profiles must hear of it
            self._error = error
        finally:
            with self._changed:
                self._changed.notify_all()

    def _take(self) -> Profile | None:
        """Return a new profile; None when no process of the task is alive."""
        assert self._source is not None
        began_s = time.monotonic()
        wall_s = time.time()
        look = self._source.look()
        if not look.pids:
            return None
        if self._newest is not None:
            self._armed.scan()
        memory = self._memory.read(look.pids, self._memfds(look))
        self._armed.add_faults(began_s, look.faults.writes or look.faults.other)
        figures = self._armed.figures(memory.dumpable_bytes)
        before = self._newest
        return Profile(
            monotonic_s=began_s,
            wall_s=wall_s,
            interval_s=0.0 if before is None else began_s - before.monotonic_s,
            duration_s=time.monotonic() - began_s,
            pid=self._task.pid,
            source=self._source.kind,
            notes=self._source.notes + self._armed.notes,
            members=tuple(self._members(look)),
            cgroup=self._cgroup,
            memory=memory,
            growth_bytes_s=self._growth.add(began_s, memory.dumpable_bytes),
            dirty_basis=figures.basis,
            dirty_rate_bytes_s=figures.rate_bytes_s,
            dirty_runs=figures.runs,
            page_ages=figures.ages,
            untracked_bytes=figures.untracked_bytes,
            frozen_s=figures.frozen_s,
            faults=look.faults,
            counts=look.counts,
            events=look.events,
            descriptors=look.descriptors,
            sockets=look.sockets,
            losses=Losses(
                events=look.losses.events,
                members=look.losses.members,
                sockets=look.losses.sockets,
                runs=look.losses.runs,
                scans=self._armed.failed_scans,
            ),
        )

    def _open_source(self) -> Source:
        pid = self._task.pid
        try:
            return open_source(self._procfs, pid, self._want_source)
        except ProcessLookupError:
            raise TaskEnded(f"the task {pid} has ended") from None

    def _memfds(self, look: Look) -> Iterable[Path]:
        array = look.descriptors.array
        memfds = array[array["kind"] == kind_number(DescriptorKind.MEMFD)]
        for one in memfds:
            yield self._procfs.root / f"{one['pid']}/fd/{one['fd']}"

    def _members(self, look: Look) -> Iterable[Member]:
        for pid in look.pids:
            with contextlib.suppress(ProcessLookupError):
                stat = self._procfs.stat(pid)
                anon, resident = self._memory.sizes(pid)
                yield Member(
                    pid=pid,
                    ppid=stat.ppid,
                    comm=stat.comm,
                    threads=stat.threads,
                    start_ticks=stat.start_ticks,
                    resident_bytes=resident,
                    anon_bytes=anon,
                    user_s=stat.user_ticks / _TICKS_A_SECOND,
                    system_s=stat.system_ticks / _TICKS_A_SECOND,
                    faults=look.faults_by_pid.get(pid, FaultCounts()),
                )


def _cgroup_of(procfs: ProcFs, pid: int) -> str:
    """Return the path of a process's version 2 cgroup; empty without one."""
    try:
        found = procfs.cgroups(pid)
    except ProcessLookupError:
        raise TaskEnded(f"the task {pid} has ended") from None
    return next((one.path for one in found if one.hierarchy_id == 0), "")
