"""Follows a process tree with eBPF: who is in it, what it has open, what it faults.

All arguments and results are pids of this process's PID namespace: see `membership` for what the programs
have instead.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

import attrs
import numpy as np

from snaplib.kernel.bpf import records
from snaplib.kernel.bpf.cache import BytecodeCache
from snaplib.kernel.bpf.membership import Membership
from snaplib.kernel.bpf.openfiles import OpenFiles, OpenFilesParser
from snaplib.kernel.bpf.programs import Programs
from snaplib.kernel.bpf.ring import RingBuffer

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ObservedLosses", "TreeObserver"]

_SETS = ("tree", "faults", "tcp", "descriptors", "tasks")

#: With more members than this, one look at the whole machine is cheaper than one at each.
_ONE_BY_ONE = 32

_LEARN = struct.pack("<I", records.SETTING_LEARN)


@attrs.frozen
class ObservedLosses:
    """What an observer could not see.

    Attributes:
        events: Tree events for which the ring had no room; counts are right all the same.
        members: Processes that did not fit into the maps.
        sockets: TCP sockets that did not fit into the maps.
        runs: Times that a program at a tracepoint was passed over because it was running already.
    """

    events: int = 0
    members: int = 0
    sockets: int = 0
    runs: int = 0


class TreeObserver:
    """Observes a process tree, from now on with all its children.

    Args:
        pid: The root of the tree.
        cgroup_id: A version 2 cgroup (inode of its folder) whose processes belong as well; 0 for none.
        cache: Where bytecode comes from.

    Raises:
        BpfUnavailable: eBPF cannot be used here.
        ProcessLookupError: The root has ended.
    """

    def __init__(
        self,
        pid: int,
        *,
        cgroup_id: int = 0,
        cache: BytecodeCache | None = None,
    ) -> None:
        self._programs = Programs(BytecodeCache() if cache is None else cache)
        #: Programs that this kernel has no place for, and why.
        self.left_out: dict[str, str] = {}
        self._ring: RingBuffer | None = None
        self._departed = np.zeros((), records.COUNTS)
        self._per_process = True
        self._parser = OpenFilesParser()
        #: Inodes of the sockets that the programs know; None when they learn those of the next listing.
        self._learned: np.ndarray | None = None
        try:
            self.left_out = self._programs.load(*_SETS)
            events = self._programs.maps["events"]
            self._ring = RingBuffer(events.descriptor, events.definition.entries)
            self._members = Membership(self._programs, pid, cgroup_id=cgroup_id)
            self._programs.maps["settings"].set(_LEARN, struct.pack("<Q", 1))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Take everything out of the kernel."""
        if self._ring is not None:
            self._ring.close()
            self._ring = None
        self._programs.close()

    def processes(self) -> np.ndarray:
        """Return the living members as `records.PROCESS`; ``tgid`` and ``parent`` are pids.

        A parent outside the tree or of another PID namespace is 0.
        """
        found = self._members.processes()
        return found[np.argsort(found["start_boottime_ns"], kind="stable")]

    def descriptors(self) -> OpenFiles:
        """Return all open descriptors of members, valid until this observer is asked for anything else.

        Call `processes` before: of members that are new since then, and of those that end meanwhile, the pid
        is 0.
        """
        before = self._members.births
        found = self._read_descriptors(before)
        after = self._members.births
        there = {
            one: self._members.pid_of(one)
            for one, born in before.items()
            # A stranger may have got the id of one that ended.
            if one in after and born in (after[one], records.ADDED)
        }
        files = self._parser.parse(found, there)
        self._learn_next(files.descriptors["inode"].take(files.owners))
        return files

    def counts(self) -> tuple[dict[int, np.ndarray], np.ndarray]:
        """Return the counters of members by pid, and those of the whole tree since it was observed.

        Both as `records.COUNTS`, all CPUs together. The counters of a process that has ended, or that was
        not yet there when the processes were last listed, are in the second only.
        """
        table = self._programs.maps["counts"]
        keys, values = table.items(np.uint32, records.COUNTS)
        living = self._members.births.keys()
        by_pid: dict[int, np.ndarray] = {}
        of_the_living = np.zeros((), records.COUNTS)
        for key, rows in zip(keys.tolist(), values, strict=True):
            if key in living:
                counts = _summed(rows)
                _add(of_the_living, counts)
                if pid := self._members.pid_of(key):
                    by_pid[pid] = counts
                continue
            # Read again: it may have ended after the first reading, and counted until then.
            raw_key = struct.pack("<I", key)
            last = table.get(raw_key, records.COUNTS)
            if last is not None and table.delete(raw_key):
                _add(self._departed, _summed(last))
        _add(of_the_living, self._departed)
        return by_pid, of_the_living

    @property
    def adopted(self) -> int:
        """How many processes became members whom the programs have not seen being born."""
        return self._members.adopted

    def exits(self) -> int:
        """Return how many members have ended."""
        return int(self._total("exits", 1)[0])

    def tcp_changes(self) -> np.ndarray:
        """Return how often a TCP socket of the tree went into each state; shape (16,), uint64."""
        return self._total("tcp_changes", 16)

    def events(self) -> np.ndarray:
        """Return forks, execs and ends since the last call as `records.EVENT`.

        Who has no pid in our namespace, having been born in another one and entered the task's cgroup, is 0.
        """
        assert self._ring is not None
        return np.frombuffer(b"".join(self._ring.drain()), records.EVENT)

    def losses(self) -> ObservedLosses:
        """Return what could not be seen so far."""
        events, members, sockets, _ = self._total("losses", 4).tolist()
        # Who was refused may be counted by the program already.
        members = max(members, self._members.refused)
        return ObservedLosses(events, members, sockets, self._programs.misses())

    def _total(self, name: str, count: int) -> np.ndarray:
        """Return the counters of a map per CPU with one entry, all CPUs together; shape (count,)."""
        rows = self._programs.maps[name].get(bytes(4), np.dtype((np.uint64, count)))
        if rows is None:
            return np.zeros(count, np.uint64)
        total: np.ndarray = rows.reshape(-1, count).sum(axis=0)
        return total

    def _learn_next(self, sockets: np.ndarray) -> None:
        """Have the programs learn sockets with the next listing if these inodes are not those they have learned.

        They know by themselves what members connect and accept. But members may have been given sockets.
        """
        if self._learned is not None and np.array_equal(sockets, self._learned):
            return
        learning = self._learned is None
        self._learned = sockets if learning else None
        self._programs.maps["settings"].set(_LEARN, struct.pack("<Q", not learning))

    def _read_descriptors(self, members: Iterable[int]) -> np.ndarray:
        pids = [pid for one in members if (pid := self._members.pid_of(one))]
        if self._per_process and len(pids) <= _ONE_BY_ONE:
            try:
                return self._programs.iterate(
                    "bpf_iter__task_file_one", records.DESCRIPTOR, pids=pids
                )
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.E2BIG):
                    raise
                self._per_process = False
        return self._programs.iterate("bpf_iter__task_file", records.DESCRIPTOR)


def _summed(rows: np.ndarray) -> np.ndarray:
    total = np.zeros((), records.COUNTS)
    for name in records.COUNTS.names or ():
        total[name] = rows[name].sum(axis=0)
    return total


def _add(total: np.ndarray, more: np.ndarray) -> None:
    for name in records.COUNTS.names or ():
        total[name] += more[name]
