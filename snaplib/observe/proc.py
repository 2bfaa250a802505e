"""Looks at a task through /proc and sock_diag alone: where eBPF is not allowed.

The records are the same. What only eBPF sees stays zero: kinds of faults, forks, state changes. A process
whose parent has ended is not found any more.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Literal

import numpy as np

from snaplib.kernel import Descriptor, ProcFs
from snaplib.kernel.sockets import Socket, list_sockets
from snaplib.observe.descriptors import (
    DESCRIPTOR_DTYPE,
    DescriptorTable,
    kind_number,
    kind_of,
)
from snaplib.observe.profile import FaultCounts
from snaplib.observe.sockets import SOCKET_DTYPE, SocketTable
from snaplib.observe.source import Look

__all__ = ["ProcSource"]


class ProcSource:
    """Looks at a task through /proc.

    Args:
        procfs: Where the processes are seen.
        pid: The task's root.
        reason: Why it is not eBPF.

    Raises:
        ProcessLookupError: The root has ended.
    """

    kind: Literal["ebpf", "proc"] = "proc"

    def __init__(self, procfs: ProcFs, pid: int, *, reason: str = "") -> None:
        self._procfs = procfs
        self._pid = pid
        self._started = procfs.stat(pid).start_ticks
        self.notes: tuple[str, ...] = (f"no eBPF: {reason}",) if reason else ()
        self._first_faults: dict[tuple[int, int], int] = {}
        self._last_faults: dict[tuple[int, int], int] = {}
        self._began = False

    def look(self) -> Look:
        """Return what there is to be seen now."""
        try:
            pids = self._procfs.tree(self._pid)
            if self._procfs.stat(self._pid).start_ticks != self._started:
                return Look(())  # it has ended, and a stranger has its pid
        except ProcessLookupError:
            return Look(())
        alive = []
        faults: dict[int, FaultCounts] = {}
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                stat = self._procfs.stat(pid)
                if stat.zombie and stat.threads <= 1:
                    continue
                key = (pid, stat.start_ticks)
                count = stat.minor_faults + stat.major_faults
                self._first_faults.setdefault(key, 0 if self._began else count)
                self._last_faults[key] = count
                faults[pid] = FaultCounts(other=count - self._first_faults[key])
                alive.append(pid)
        self._began = True
        descriptors, sockets = self._descriptors(alive)
        return Look(
            pids=tuple(alive),
            faults=FaultCounts(
                other=sum(self._last_faults.values()) - sum(self._first_faults.values())
            ),
            faults_by_pid=faults,
            descriptors=descriptors,
            sockets=sockets,
        )

    def close(self) -> None:
        """Nothing is held open."""

    def _descriptors(self, pids: list[int]) -> tuple[DescriptorTable, SocketTable]:
        paths: dict[str, int] = {}
        rows: list[tuple[int, ...]] = []
        wanted: list[tuple[int, Descriptor]] = []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                folder = self._folder(pid)
                for one in self._procfs.descriptors(pid):
                    try:
                        found = (folder / str(one.fd)).stat()
                    except OSError:
                        continue  # closed since, or of a process that has just ended
                    kind = kind_number(kind_of(found.st_mode, one.target))
                    path = paths.setdefault(one.target, len(paths))
                    # Which descriptors share an open file /proc does not tell: each has its own.
                    rows.append(
                        (
                            pid,
                            one.fd,
                            one.flags,
                            found.st_mode,
                            found.st_ino,
                            one.pos,
                            found.st_dev & 0xFFFFFFFF,
                            len(rows),
                            path,
                            kind,
                        )
                    )
                    if one.target.startswith("socket:["):
                        wanted.append((pid, one))
        table = np.array(rows, DESCRIPTOR_DTYPE)
        return DescriptorTable(table, tuple(paths)), self._sockets(wanted)

    def _folder(self, pid: int) -> Path:
        """Return where the descriptors of a process are: not with its main thread, if that has ended."""
        root = self._procfs.root
        if self._procfs.stat(pid).zombie:
            for tid in self._procfs.threads(pid):
                with contextlib.suppress(ProcessLookupError):
                    if not self._procfs.thread_stat(pid, tid).zombie:
                        return root / f"{pid}/task/{tid}/fd"
        return root / f"{pid}/fd"

    def _sockets(self, wanted: list[tuple[int, Descriptor]]) -> SocketTable:
        if not wanted:
            return SocketTable()
        inodes = {int(one.target[8:-1]) for _, one in wanted}
        families = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
        # All members of a task share its root's network namespace, or this shows less.
        namespace = f"{self._procfs.root}/{wanted[0][0]}/ns/net"
        try:
            if self._procfs.namespaces(wanted[0][0]).get("net") == self._procfs.namespaces(
                os.getpid()
            ).get("net"):
                namespace = ""
            known = list_sockets(families, inodes, namespace or None).by_inode
        except OSError:
            known = {}
        table = np.zeros(len(wanted), SOCKET_DTYPE)
        for row, (pid, one) in zip(table, wanted, strict=True):
            inode = int(one.target[8:-1])
            row["pid"], row["fd"], row["inode"] = pid, one.fd, inode
            row["receive_queue"] = row["send_queue"] = -1
            if (found := known.get(inode)) is not None:
                _fill(row, found)
        return SocketTable(table)


def _fill(row: np.void, found: Socket) -> None:
    row["family"], row["type"] = found.family, found.kind
    row["protocol"], row["state"] = found.protocol, found.state
    row["receive_queue"], row["send_queue"] = found.receive_queue, found.send_queue
    row["peer_inode"] = found.peer_inode or 0
    if found.family in (socket.AF_INET, socket.AF_INET6):
        for address, name in ((found.local, "local"), (found.remote, "peer")):
            host, _, port = address.rpartition(":")
            if host:
                raw = socket.inet_pton(found.family, host.strip("[]"))
                row[name] = np.frombuffer(raw.ljust(16, b"\0"), np.uint8)
                row[f"{name}_port"] = int(port)
