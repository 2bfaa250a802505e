"""Makes profiles of a task, each from one look at it."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from snaplib.errors import TaskEnded
from snaplib.kernel import ProcFs
from snaplib.observe.armed import ArmedMemory
from snaplib.observe.descriptors import DescriptorKind, kind_number
from snaplib.observe.growth import Growth
from snaplib.observe.memoryreader import MemoryReader
from snaplib.observe.opening import open_source
from snaplib.observe.profile import FaultCounts, Losses, Member, Profile
from snaplib.observe.source import Look, Source

if TYPE_CHECKING:
    from collections.abc import Iterable

    from snaplib.track import TrackableTask

__all__ = ["Profiler"]

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class Profiler:
    """Makes profiles of a task; one thread at a time may use it.

    Args:
        task: The task.
        armed: What sees its writes; the caller's to disarm.
        source: ``ebpf`` or ``proc`` to have that or nothing; by default eBPF where it works.
    """

    def __init__(
        self,
        task: TrackableTask,
        armed: ArmedMemory,
        source: Literal["ebpf", "proc"] | None = None,
    ) -> None:
        self._task = task
        self._procfs = task.procfs
        self._armed = armed
        self._want_source = source
        self._source: Source | None = None
        self._memory = MemoryReader(self._procfs, armed.keep_mapped)
        self._growth = Growth()
        self._cgroup = ""
        self._newest: Profile | None = None

    def open(self) -> None:
        """Begin to look.

        Raises:
            TaskEnded: The task has ended.
        """
        pid = self._task.pid
        try:
            self._cgroup = _cgroup_of(self._procfs, pid)
            self._source = open_source(self._procfs, pid, self._want_source)
        except ProcessLookupError:
            raise TaskEnded(f"the task {pid} has ended") from None

    def close(self) -> None:
        """Look no more; may be called again."""
        if self._source is not None:
            self._source.close()
            self._source = None

    def take(self) -> Profile | None:
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
        self._newest = Profile(
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
        return self._newest

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
    return next((one.path for one in procfs.cgroups(pid) if one.hierarchy_id == 0), "")
