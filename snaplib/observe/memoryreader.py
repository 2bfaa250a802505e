"""Reads how much memory a task has, without slowing it: page tables are walked only now and then."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from snaplib.kernel import Mapping, ProcFs
from snaplib.kernel.maps import parse_maps, parse_smaps
from snaplib.observe.memory import Memory, SharedObject, memory_of

__all__ = ["MemoryReader"]

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

#: Walking takes at most one part in so many of the time, and so many times less while the sums stay as they are.
_WALK_SHARE = 300
_PATIENCE = 10

#: Sums that have moved by less than one part in so many are as they were.
_SAME = 64

#: Ten thousand threads have twice as many mappings; telling their kinds apart would take 2 s.
_MANY_MAPPINGS = 4096

_SHARED = re.compile(rb"^[0-9a-f]+-[0-9a-f]+ [r-][w-][x-]s .*$", re.MULTILINE)


class MemoryReader:
    """Reads the memory of a task by kind.

    Args:
        procfs: Where the processes are seen.
        on_mappings: Told the mappings of a process whenever they have been read anyway.
    """

    def __init__(
        self, procfs: ProcFs, on_mappings: Callable[[int, tuple[Mapping, ...]], None] | None = None
    ) -> None:
        self._procfs = procfs
        self._root = procfs.root
        self._on_mappings = on_mappings
        self._next_walk_s = 0.0
        #: The same while the sums stay as they are.
        self._patient_until_s = 0.0
        #: Of each process walked: its memory then, and what `sizes` said at that time.
        self._walked: dict[int, tuple[Memory, int, int]] = {}
        self._objects: dict[SharedObject, Path] = {}

    def sizes(self, pid: int) -> tuple[int, int]:
        """Return the anonymous and all resident bytes of a process.

        Raises:
            ProcessLookupError: It has ended.
        """
        # proc_pid_statm(5): size, resident, shared (of files and shared memory), ...
        fields = self._read(f"{pid}/statm").split()
        if fields[1] == b"0":
            fields = self._read(f"{self._memory_owner(pid)}/statm").split()
        resident, shared = int(fields[1]) * _PAGE_BYTES, int(fields[2]) * _PAGE_BYTES
        return resident - shared, resident

    def read(self, pids: Iterable[int], memfds: Iterable[Path] = ()) -> Memory:
        """Return the memory of some processes together.

        Args:
            pids: The processes.
            memfds: Links to shared memory that is open as files, which need not be mapped.
        """
        now = time.monotonic()
        pids = tuple(pids)
        if now >= self._next_walk_s and (now >= self._patient_until_s or self._moved(pids)):
            self._walk(pids)
            took_s = time.monotonic() - now
            self._next_walk_s = now + took_s * _WALK_SHARE
            self._patient_until_s = now + took_s * _WALK_SHARE * _PATIENCE
        found = []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                if pid not in self._walked:
                    self._walk_one(pid)
                memory, anon_then, resident_then = self._walked[pid]
                anon, resident = self.sizes(pid)
                others = (resident - anon) - (resident_then - anon_then)
                found.append(memory.grown(anon - anon_then, others))
        oldest_s = min((one.measured_s for one in found), default=now)
        shared = Memory(shmem_bytes=self._shared_bytes(memfds), measured_s=oldest_s)
        return functools.reduce(Memory.plus, found, shared)

    def _moved(self, pids: tuple[int, ...]) -> bool:
        """Return whether the processes have other sums than when they were walked, or are others."""
        if set(pids) != self._walked.keys():
            return True
        for pid, (_memory, *then) in self._walked.items():
            with contextlib.suppress(ProcessLookupError):
                if any(
                    abs(size - before) * _SAME > before
                    for size, before in zip(self.sizes(pid), then, strict=True)
                ):
                    return True
        return False

    def _walk(self, pids: tuple[int, ...]) -> None:
        self._walked.clear()
        self._objects.clear()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                self._walk_one(pid)

    def _walk_one(self, pid: int) -> None:
        anon, resident = self.sizes(pid)
        now = time.monotonic()
        try:
            memory, objects = self._kinds(pid, now)
        except PermissionError:
            # A member that has changed its user shows only its sums.
            memory = Memory(anon_bytes=anon, file_clean_bytes=resident - anon, measured_s=now)
            objects = {}
        self._walked[pid] = memory, anon, resident
        for one, mapping in objects.items():
            link = self._root / f"{pid}/map_files/{mapping.start:x}-{mapping.end:x}"
            self._objects.setdefault(one, link)

    def _kinds(self, pid: int, now: float) -> tuple[Memory, dict[SharedObject, Mapping]]:
        maps = self._read(f"{self._memory_owner(pid)}/maps")
        if maps.count(b"\n") > _MANY_MAPPINGS:
            return self._sums(pid, maps, now)
        mappings = self._procfs.smaps(pid)
        if self._on_mappings is not None:
            self._on_mappings(pid, mappings)
        return memory_of(mappings, now)

    def _sums(
        self, pid: int, maps: bytes, now: float
    ) -> tuple[Memory, dict[SharedObject, Mapping]]:
        """Return what `memory_of` does, with all private memory as anonymous: no walk by mapping."""
        rollup = self._read(f"{self._memory_owner(pid)}/smaps_rollup")
        (total,) = parse_smaps(rollup)
        _, objects = memory_of(parse_maps(b"\n".join(_SHARED.findall(maps))))
        anonymous = total.anonymous_bytes or 0
        hugetlb = (total.private_hugetlb_bytes or 0) + (total.shared_hugetlb_bytes or 0)
        memory = Memory(
            anon_bytes=anonymous,
            file_clean_bytes=(total.rss_bytes or 0) - anonymous,
            hugetlb_bytes=hugetlb,
            swap_bytes=total.swap_bytes or 0,
            mappings=maps.count(b"\n"),
            measured_s=now,
        )
        return memory, objects

    def _read(self, name: str) -> bytes:
        try:
            return (self._root / name).read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            # It ended before the file was opened, or between that and reading.
            raise ProcessLookupError(f"no process {name.split('/', maxsplit=1)[0]}") from None

    def _memory_owner(self, pid: int) -> str:
        """Return the folder of a process, or of a thread if its main thread, and so its memory, is gone."""
        stat = self._procfs.stat(pid)
        if not stat.zombie:
            return str(pid)
        for tid in self._procfs.threads(pid):
            with contextlib.suppress(ProcessLookupError):
                if not self._procfs.thread_stat(pid, tid).zombie:
                    return f"{pid}/task/{tid}"
        raise ProcessLookupError(f"no process {pid}")

    def _shared_bytes(self, memfds: Iterable[Path]) -> int:
        sizes: dict[tuple[int, int], int] = {}
        for link in (*self._objects.values(), *memfds):
            with contextlib.suppress(OSError):
                found = link.stat()
                sizes[found.st_dev, found.st_ino] = found.st_blocks * 512
        return sum(sizes.values())
