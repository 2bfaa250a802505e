"""Looks at a task with eBPF: exact, and cheap enough to be left on."""

from __future__ import annotations

import os
import socket
from typing import Literal

import numpy as np

from snaplib.kernel import ProcFs
from snaplib.kernel.bpf import BytecodeCache, OpenFiles, TreeObserver, records
from snaplib.observe.descriptors import DESCRIPTOR_DTYPE, DescriptorTable
from snaplib.observe.links import LinkReader
from snaplib.observe.profile import FaultCounts, Losses, TreeCounts, TreeEvent
from snaplib.observe.sockets import SOCKET_DTYPE, SocketTable, state_name
from snaplib.observe.source import Look

__all__ = ["EbpfSource"]

#: A profile lists no more events than this; the counts have them all.
_MAX_EVENTS = 512

_EVENT_KINDS: dict[int, Literal["fork", "exec", "exit"]] = {
    records.EVENT_FORK: "fork",
    records.EVENT_EXEC: "exec",
    records.EVENT_EXIT: "exit",
}


class EbpfSource:
    """Looks at a task with the programs in `bpf/`.

    Args:
        procfs: Where the processes are seen.
        pid: The task's root.
        cgroup_id: The task's own version 2 cgroup, whose processes all belong; 0 for none.
        cache: Where bytecode comes from.

    Raises:
        BpfUnavailable: eBPF cannot be used here.
        ProcessLookupError: The root has ended.
    """

    kind: Literal["ebpf", "proc"] = "ebpf"

    def __init__(
        self,
        procfs: ProcFs,
        pid: int,
        *,
        cgroup_id: int = 0,
        cache: BytecodeCache | None = None,
    ) -> None:
        self._observer = TreeObserver(pid, cgroup_id=cgroup_id, cache=cache)
        self._links = LinkReader(procfs)
        self._index = np.empty(0, np.uint32)
        self._table = np.empty(0, DESCRIPTOR_DTYPE)
        self.notes = tuple(
            f"{name} is not watched: {why}" for name, why in self._observer.left_out.items()
        )

    def look(self) -> Look:
        """Return what there is to be seen now."""
        observer = self._observer
        processes = observer.processes()
        alive = processes[processes["live"] > 0]
        by_pid, total = observer.counts()
        events = observer.events()
        descriptors, sockets = self._descriptors()
        lost = observer.losses()
        return Look(
            pids=tuple(alive["tgid"].tolist()),
            faults=_faults(total),
            faults_by_pid={pid: _faults(counts) for pid, counts in by_pid.items()},
            counts=TreeCounts(
                forks=int(total["forks"]),
                execs=int(total["execs"]),
                exits=observer.exits(),
                adopted=observer.adopted,
                threads_started=int(total["threads_started"]),
                threads_ended=int(total["threads_ended"]),
                file_changes=int(total["rss"][0]),
                anon_changes=int(total["rss"][1]),
                shmem_changes=int(total["rss"][3]),
                tcp_changes=tuple(
                    (state_name(state), count)
                    for state, count in enumerate(observer.tcp_changes().tolist())
                    if count
                ),
            ),
            events=tuple(
                TreeEvent(
                    time_s=time_ns / 1e9,
                    kind=_EVENT_KINDS[kind],
                    pid=pid,
                    child_pid=child,
                )
                for time_ns, kind, pid, child, _ in events[-_MAX_EVENTS:].tolist()
            ),
            descriptors=descriptors,
            sockets=sockets,
            losses=Losses(
                events=lost.events, members=lost.members, sockets=lost.sockets, runs=lost.runs
            ),
        )

    def close(self) -> None:
        """Take the programs out of the kernel."""
        self._observer.close()

    def _descriptors(self) -> tuple[DescriptorTable, SocketTable]:
        files = self._observer.descriptors().by_process()
        return self._described(files.descriptors), SocketTable(_sockets(files))

    def _described(self, raw: np.ndarray) -> DescriptorTable:
        identity = raw["file"] ^ (raw["inode"] << np.uint64(20)) ^ raw["device"].astype(np.uint64)
        index, kinds, paths = self._links.read(raw["tgid"], raw["fd"], raw["mode"], identity)
        if index is self._index:
            # The same open files as last time, all of them; only what can change of one is read.
            # As numbers: numpy copies records field by field.
            table = self._table.view(np.uint64).copy().view(DESCRIPTOR_DTYPE)
        else:
            table = np.zeros(len(raw), DESCRIPTOR_DTYPE)
            table["pid"] = raw["tgid"]
            for name in ("fd", "mode", "inode"):
                table[name] = raw[name]
            # The kernel's own encoding of a device number (include/linux/kdev_t.h): 12 and 20 bits.
            devices, inverse = np.unique(raw["device"], return_inverse=True)
            encoded = [os.makedev(one >> 20, one & 0xFFFFF) for one in devices.tolist()]
            table["device"] = np.array(encoded, np.uint32)[inverse]
            # Addresses of kernel objects stay here: numbers say the same, and tell no secret.
            table["open_file"] = np.unique(raw["file"], return_inverse=True)[1]
            table["path"], table["kind"] = index, kinds
        table["flags"], table["position"] = raw["flags"], raw["position"]
        table.flags.writeable = False
        self._index, self._table = index, table
        return DescriptorTable(table, paths)


def _sockets(files: OpenFiles) -> np.ndarray:
    raw = files.sockets
    table = np.zeros(raw.size, SOCKET_DTYPE)
    if not raw.size:
        table.flags.writeable = False
        return table
    for name, of_owner in (("pid", "tgid"), ("fd", "fd"), ("inode", "inode")):
        table[name] = files.descriptors[of_owner].take(files.owners)
    for name in ("family", "type", "protocol", "state", "local_port", "peer_port"):
        table[name] = raw[name]
    for name in ("receive_queue", "send_queue"):
        queue = raw[name].astype(np.int64)
        queue[queue == records.UNKNOWN] = -1
        table[name] = queue
    table["local"], table["peer"] = raw["local"], raw["peer"]
    unix = np.flatnonzero(raw["family"] == socket.AF_UNIX)
    if unix.size:
        # They have no address, and their peer's inode in its place.
        table["peer_inode"][unix] = raw["local"][unix, :8].copy().view("<u8")[:, 0]
        table["local"][unix] = 0
    table.flags.writeable = False
    return table


def _faults(counts: np.ndarray) -> FaultCounts:
    # Indices are bits of the error code: 1 the page was present, 2 it was a write.
    user, kernel = counts["user"].tolist(), counts["kernel"].tolist()
    return FaultCounts(
        user_reads=user[0],
        user_writes=user[2],
        user_protected=user[3],
        kernel_reads=kernel[0],
        kernel_writes=kernel[2],
        kernel_protected=kernel[3],
        other=user[1] + kernel[1],
    )
