"""Follows a process tree with eBPF: who is in it, what it has open, what it faults.

Ids. Programs see processes by their ids in the machine's first PID namespace (*host ids*); this process
and its callers may live in another one and use that one's (*pids*). All arguments and results here are
pids, translated by what the kernel shows of each process in every namespace.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable

import attrs
import numpy as np

from snaplib.kernel.bpf import records
from snaplib.kernel.bpf.cache import BytecodeCache
from snaplib.kernel.bpf.programs import Programs
from snaplib.kernel.bpf.ring import RingBuffer

__all__ = ["ObservedLosses", "TreeObserver"]

_SETS = ("tree", "faults", "tcp", "descriptors", "tasks")

#: With more members than this, one look at the whole machine is cheaper than one at each.
_ONE_BY_ONE = 32

#: Rounds of looking for members that were born while others were added.
_SEED_ROUNDS = 64


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
        pids: Returns the pids of the tree as /proc tells them; called until it has nothing new.
        cgroup_id: A version 2 cgroup (inode of its folder) whose processes belong as well; 0 for none.
        cache: Where bytecode comes from.

    Raises:
        BpfUnavailable: eBPF cannot be used here.
    """

    def __init__(
        self,
        pids: Callable[[], Iterable[int]],
        *,
        cgroup_id: int = 0,
        cache: BytecodeCache | None = None,
    ) -> None:
        self._programs = Programs(BytecodeCache() if cache is None else cache)
        #: Programs that this kernel has no place for, and why.
        self.left_out: dict[str, str] = {}
        self._ring: RingBuffer | None = None
        self._level = 0
        self._pids: dict[int, int] = {}
        self._departed = np.zeros((), records.COUNTS)
        self._per_process = True
        try:
            self.left_out = self._programs.load(*_SETS)
            maps = self._programs.maps
            events = maps["events"]
            self._ring = RingBuffer(events.descriptor, events.definition.entries)
            if cgroup_id:
                maps["settings"].set(struct.pack("<I", 0), struct.pack("<Q", cgroup_id))
            self._seed(pids)
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
        found = self._programs.iterate("bpf_iter__task", records.PROCESS)
        self._pids.update(zip(found["tgid"].tolist(), self._own_ids(found), strict=True))
        for name in ("tgid", "parent"):
            found[name] = self._translated(found[name])
        return found[np.argsort(found["start_boottime_ns"], kind="stable")]

    def descriptors(self) -> np.ndarray:
        """Return all open descriptors of members as `records.DESCRIPTOR`; ``tgid`` is a pid.

        Call `processes` before: members that are new since then have the pid 0.
        """
        found = self._read_descriptors()
        found["tgid"] = self._translated(found["tgid"])
        return found

    def counts(self) -> tuple[dict[int, np.ndarray], np.ndarray]:
        """Return the counters of members by pid, and those of the whole tree since it was observed.

        Both as `records.COUNTS`, all CPUs together. The counters of a process that has ended are in the
        second only.
        """
        table = self._programs.maps["counts"]
        keys, values = table.items(np.uint32, records.COUNTS)
        living = set(self._member_ids())
        by_pid: dict[int, np.ndarray] = {}
        for key, rows in zip(keys.tolist(), values, strict=True):
            if key in living:
                by_pid[self._pids.get(key, 0)] = _summed(rows)
                continue
            # Read again: it may have ended after the first reading, and counted until then.
            raw_key = struct.pack("<I", key)
            last = table.get(raw_key, records.COUNTS)
            if last is not None and table.delete(raw_key):
                _add(self._departed, _summed(last))
                self._pids.pop(key, None)
        total = self._departed.copy()
        for counts in by_pid.values():
            _add(total, counts)
        return by_pid, total

    def tcp_changes(self) -> np.ndarray:
        """Return how often a TCP socket of the tree went into each state; shape (16,), uint64."""
        table = self._programs.maps["tcp_changes"]
        rows = [table.get(struct.pack("<I", state), np.uint64) for state in range(16)]
        return np.array([0 if row is None else row.sum() for row in rows], np.uint64)

    def events(self) -> np.ndarray:
        """Return forks, execs and ends since the last call as `records.EVENT`; ids are pids, 0 if unknown."""
        assert self._ring is not None
        drained = self._ring.drain()
        found = np.frombuffer(b"".join(drained), records.EVENT).copy()
        for name in ("tgid", "other"):
            found[name] = self._translated(found[name])
        return found

    def losses(self) -> ObservedLosses:
        """Return what could not be seen so far."""
        table = self._programs.maps["losses"]
        lost = [table.get(struct.pack("<I", kind), np.uint64) for kind in range(3)]
        events, members, sockets = (0 if one is None else int(one.sum()) for one in lost)
        return ObservedLosses(events, members, sockets, self._programs.misses())

    def _seed(self, pids: Callable[[], Iterable[int]]) -> None:
        # The programs are attached: whom a member has forked since it was added is in already. What
        # was forked before shows in the next look. Two looks that agree have it all.
        known: set[int] = set()
        maps = self._programs.maps
        for _ in range(_SEED_ROUNDS):
            new = set(pids()) - known
            if not new:
                break
            known |= new
            host_ids = self._host_ids()
            for pid in new & host_ids.keys():
                key = struct.pack("<I", host_ids[pid])
                if maps["members"].get(key, np.uint64) is None:
                    maps["counts"].set(key, bytes(records.COUNTS.itemsize))
                    maps["members"].set(key, bytes(8))
                self._pids[host_ids[pid]] = pid
        # One that ended before it was added has told nobody.
        living = set(self._host_ids().values())
        for host_id in set(self._member_ids()) - living:
            maps["members"].delete(struct.pack("<I", host_id))

    def _host_ids(self) -> dict[int, int]:
        """Return pid -> host id of every living process that we can see."""
        found = self._programs.iterate("bpf_iter__task_any", records.PROCESS)
        # All are of our namespace or of one below it.
        self._level = int(found["level"].min())
        found = found[found["live"] > 0]
        return dict(zip(self._own_ids(found), found["tgid"].tolist(), strict=True))

    def _own_ids(self, found: np.ndarray) -> list[int]:
        ids: list[int] = found["ids"][:, min(self._level, 7)].tolist()
        return ids

    def _translated(self, host_ids: np.ndarray) -> np.ndarray:
        if self._level == 0:
            return host_ids  # in the machine's first namespace both are the same, known or not
        unique, inverse = np.unique(host_ids, return_inverse=True)
        pids = [self._pids.get(one, 0) for one in unique.tolist()]
        return np.array(pids, np.uint32)[inverse]

    def _member_ids(self) -> list[int]:
        ids: list[int] = self._programs.maps["members"].items(np.uint32, np.uint64)[0].tolist()
        return ids

    def _read_descriptors(self) -> np.ndarray:
        members = self._member_ids()
        if not self._per_process or len(members) > _ONE_BY_ONE:
            return self._programs.iterate("bpf_iter__task_file", records.DESCRIPTOR)
        parts = [np.empty(0, records.DESCRIPTOR)]
        for host_id in members:
            pid = host_id if self._level == 0 else self._pids.get(host_id)
            if pid is None:
                continue
            try:
                part = self._programs.iterate("bpf_iter__task_file", records.DESCRIPTOR, pid=pid)
            except OSError as error:
                if error.errno == errno.ESRCH:
                    continue
                raise
            if np.any(part["tgid"] != host_id):
                # A kernel that knows no iterators of one process has listed them all.
                self._per_process = False
                return self._programs.iterate("bpf_iter__task_file", records.DESCRIPTOR)
            parts.append(part)
        return parts[1] if len(parts) == 2 else np.concatenate(parts)


def _summed(rows: np.ndarray) -> np.ndarray:
    total = np.zeros((), records.COUNTS)
    for name in records.COUNTS.names or ():
        total[name] = rows[name].sum(axis=0)
    return total


def _add(total: np.ndarray, more: np.ndarray) -> None:
    for name in records.COUNTS.names or ():
        total[name] += more[name]
