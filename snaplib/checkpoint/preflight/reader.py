"""Reads the members of a task: /proc and stat(2) through /proc."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from typing import TYPE_CHECKING

import attrs

from snaplib.checkpoint.preflight.scene import FileFacts, Member
from snaplib.kernel.epoll import epoll_watches
from snaplib.kernel.filesystems import file_system_magic
from snaplib.kernel.socketoptions import (
    has_kernel_tls,
    socket_protocol,
    tcp_is_kernel_tls,
    udp_is_corked,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from snaplib.kernel.descriptors import Descriptor
    from snaplib.kernel.maps import Mapping as MemoryMapping
    from snaplib.kernel.mounts import Mount
    from snaplib.kernel.procfs import ProcFs

__all__ = ["MemberReader", "internal_dev", "link_target"]

#: smaps tells more than maps, and walks all pages for it: 20 to 70 ms a GB.
_SMAPS_MAX_BYTES = 2 << 30

#: A process that is killed needs no longer for all of its threads to end.
_ENDING_S = 0.2

#: A thread that has not run for so long is stuck; a disk answers sooner.
_STUCK_AFTER_S = 0.1

#: Files of the kernel's own that have no visible mount, and that CRIU knows.
_INTERNAL_NAMES = ("/memfd:", "/anon_hugepage", "/SYSV", "/dev/zero", "/[aio]")

#: File systems whose paths are not checked: CRIU gives these back by name.
_BY_NAME = frozenset({"proc", "devpts"})


class MemberReader:
    """Reads the members of one task."""

    def __init__(
        self, procfs: ProcFs, mounts: Mapping[int, Mount], internal_dev: int, same_mounts: bool
    ) -> None:
        self._procfs = procfs
        self._root = os.fspath(procfs.root)
        self._mounts = mounts
        self._internal_dev = internal_dev
        self._same_mounts = same_mounts
        self._has_kernel_tls = has_kernel_tls(procfs)
        # How often threads had run that were seen in an uninterruptible wait, and when that was.
        self._waiting: dict[tuple[int, int], str] = {}
        self._waiting_since = 0.0

    def members(self, pids: Iterable[int]) -> dict[int, Member]:
        """Read processes; those that have ended are left out."""
        statuses = {}
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                statuses[pid] = self._procfs.status(pid)
        resident_bytes = sum(one.vm_rss_bytes + one.vm_swap_bytes for one in statuses.values())
        detailed = resident_bytes <= _SMAPS_MAX_BYTES
        found = {}
        for pid in statuses:
            with contextlib.suppress(ProcessLookupError):
                member = self._member(pid, detailed=detailed)
                if member.stat.zombie and len(member.threads) > 1:
                    self._wait_for_threads(pid)
                    member = self._member(pid, detailed=detailed)
                found[pid] = member
        return found

    def _wait_for_threads(self, pid: int) -> None:
        """Wait a little: when a process ends, its main thread may be the first to go."""
        give_up = time.monotonic() + _ENDING_S
        while len(self._procfs.threads(pid)) > 1 and time.monotonic() < give_up:
            time.sleep(0.002)

    def still_stuck(self, members: Mapping[int, Member]) -> dict[int, Member]:
        """Look again at threads that could not be interrupted: most have run meanwhile."""
        found = dict(members)
        if self._waiting:
            time.sleep(max(0.0, self._waiting_since + _STUCK_AFTER_S - time.monotonic()))
        for (pid, tid), before in self._waiting.items():
            with contextlib.suppress(OSError):
                stuck = self._procfs.thread_stat(pid, tid).state == "D"
                if stuck and self._runs(pid, tid) == before:
                    word = self._thread_file(pid, tid, "syscall").split(None, 1)[0]
                    stuck_in = int(word) if word.isdigit() else -1
                    found[pid] = attrs.evolve(found[pid], stuck_in=stuck_in)
        return found

    def _member(self, pid: int, *, detailed: bool) -> Member:
        procfs = self._procfs
        status = procfs.status(pid)
        threads = procfs.threads(pid)
        statuses = {pid: status}
        for tid in threads:
            if tid != pid:
                with contextlib.suppress(ProcessLookupError):
                    statuses[tid] = procfs.thread_status(pid, tid)
        ended = status.state in "ZX" and len(threads) == 1
        descriptors = () if ended else procfs.descriptors(pid)
        mappings = () if ended else procfs.smaps(pid) if detailed else procfs.maps(pid)
        protocols = self._protocols(pid, descriptors)
        for tid, one in statuses.items():
            if one.state == "D":
                with contextlib.suppress(OSError):
                    self._waiting[pid, tid] = self._runs(pid, tid)
                    self._waiting_since = time.monotonic()
        return Member(
            stat=procfs.stat(pid),
            status=status,
            threads=threads,
            tracers={tid: one.tracer_pid for tid, one in statuses.items() if one.tracer_pid},
            namespaces={} if ended else procfs.namespaces(pid),
            descriptors=descriptors,
            files=self._files(pid, descriptors),
            sockets=protocols,
            escaped=_escaped(pid, descriptors),
            corked=frozenset(
                fd
                for fd, name in protocols.items()
                if name in ("UDP", "UDPv6") and udp_is_corked(pid, fd)
            ),
            kernel_tls=frozenset(
                fd
                for fd, name in protocols.items()
                if self._has_kernel_tls and name in ("TCP", "TCPv6") and tcp_is_kernel_tls(pid, fd)
            ),
            mappings=mappings,
            mapped_files=self._mapped_files(pid, mappings),
        )

    def _protocols(self, pid: int, descriptors: Iterable[Descriptor]) -> dict[int, str]:
        found = {}
        for one in descriptors:
            if one.target.startswith("socket:["):
                name = socket_protocol(f"{self._root}/{pid}", one.fd)
                if name is not None:
                    found[one.fd] = name
        return found

    def _files(self, pid: int, descriptors: Iterable[Descriptor]) -> dict[int, FileFacts]:
        found = {}
        for one in descriptors:
            if one.target.startswith("/") and not one.target.startswith(_INTERNAL_NAMES[:2]):
                with contextlib.suppress(OSError):
                    facts = self._facts(pid, one)
                    # Between the look at the link and that at the file the number may have been
                    # given to another file: what looks unusual is looked at once more.
                    if (
                        facts.path_leads_to == (facts.dev, facts.inode)
                        or link_target(self._procfs, pid, one.fd) == one.target
                    ):
                        found[one.fd] = facts
        return found

    def _facts(self, pid: int, descriptor: Descriptor) -> FileFacts:
        link = f"{self._root}/{pid}/fd/{descriptor.fd}"
        # Through /proc stat follows to the open file itself, whatever has become of its path.
        facts = _facts_of(os.stat(link))  # noqa: PTH116 - a path object costs more than the call
        mount = self._mounts.get(descriptor.mnt_id)
        if mount is None:
            return attrs.evolve(facts, file_system=file_system_magic(link))
        if mount.fs_type in _BY_NAME or facts.links == 0:
            return facts
        return attrs.evolve(facts, path_leads_to=self._path_leads_to(pid, descriptor, facts))

    def _path_leads_to(
        self, pid: int, descriptor: Descriptor, facts: FileFacts
    ) -> tuple[int, int] | None:
        path = descriptor.target
        if not self._same_mounts:
            # Of a process in another mount namespace /proc gives paths from that one's root.
            if self._procfs.root_dir(pid) != "/":
                return None
            path = f"{self._root}/{pid}/root{path}"
        try:
            found = os.stat(path, follow_symlinks=not stat.S_ISLNK(facts.mode))  # noqa: PTH116
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _mapped_files(self, pid: int, mappings: Iterable[MemoryMapping]) -> dict[int, FileFacts]:
        found: dict[int, FileFacts] = {}
        seen: set[tuple[int, int]] = set()
        for one in mappings:
            if not one.deleted or one.dev == self._internal_dev or (one.dev, one.inode) in seen:
                continue
            if one.path.startswith(_INTERNAL_NAMES):
                continue
            seen.add((one.dev, one.inode))
            with contextlib.suppress(OSError):
                link = f"{self._root}/{pid}/map_files/{one.start:x}-{one.end:x}"
                found[one.start] = _facts_of(os.stat(link))  # noqa: PTH116
        return found

    def _runs(self, pid: int, tid: int) -> str:
        """Return how often a thread has run; schedstat needs CONFIG_SCHED_INFO, all have it."""
        return self._thread_file(pid, tid, "schedstat").split()[-1]

    def _thread_file(self, pid: int, tid: int, name: str) -> str:
        return (self._procfs.root / f"{pid}/task/{tid}/{name}").read_text()


def link_target(procfs: ProcFs, pid: int, fd: int) -> str | None:
    """Return what a descriptor is now; None when it is closed."""
    try:
        return os.fspath((procfs.root / str(pid) / "fd" / str(fd)).readlink())
    except OSError:
        return None


def _escaped(pid: int, descriptors: tuple[Descriptor, ...]) -> dict[int, tuple[int, ...]]:
    """Find what epolls watch and the process has open under no number any more."""
    still_open = {one.fd for one in descriptors}
    found: dict[int, tuple[int, ...]] = {}
    for epoll in descriptors:
        seen: dict[int, int] = {}
        for line in epoll.extra.get("tfd", ()):
            # "5 events: 19 data: 5  pos:0 ino:61 sdev:7"
            watched = int(line.split(None, 1)[0])
            place = seen[watched] = seen.get(watched, -1) + 1
            if watched not in still_open and not any(
                epoll_watches(pid, epoll.fd, watched, place, one.fd)
                for one in descriptors
                if f"ino:{one.inode or 0:x} " in line
            ):
                found[epoll.fd] = (*found.get(epoll.fd, ()), watched)
    return found


def _facts_of(found: os.stat_result) -> FileFacts:
    return FileFacts(
        mode=found.st_mode,
        dev=found.st_dev,
        inode=found.st_ino,
        links=found.st_nlink,
        rdev=found.st_rdev,
        allocated_bytes=found.st_blocks * 512,
    )


def internal_dev() -> int:
    """Return the device of the kernel's own tmpfs, which no mount shows."""
    descriptor = os.memfd_create("snaplib", os.MFD_CLOEXEC)
    try:
        return os.fstat(descriptor).st_dev
    finally:
        os.close(descriptor)
