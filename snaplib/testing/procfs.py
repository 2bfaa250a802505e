"""A made-up /proc in a folder, for code that takes a `ProcFs`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from snaplib.kernel.procfs import ProcFs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = ["FakeDescriptor", "FakeProc"]


@attrs.frozen
class FakeDescriptor:
    """A descriptor to put into a fake process.

    Attributes:
        target: What its link says, such as ``socket:[1234]``.
        flags: Flags of open(2).
        pos: Position in the file, in bytes.
        mnt_id: Mount of the file.
        inode: Inode of the file.
        extra: Further lines of `fdinfo`, as they are.
    """

    target: str
    flags: int = os.O_RDWR
    pos: int = 0
    mnt_id: int = 24
    inode: int = 3
    extra: Sequence[str] = ()


class FakeProc:
    """Writes files as the kernel would, in a folder that `ProcFs` reads.

    Args:
        root: An empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.procfs = ProcFs(root)

    def add(
        self,
        pid: int,
        *,
        comm: str = "task",
        state: str = "S",
        ppid: int = 1,
        process_group: int | None = None,
        session: int | None = None,
        tty: int = 0,
        flags: int = 0x400000,
        start_ticks: int = 1000,
        uid: int = 0,
        ns_pids: Sequence[int] | None = None,
        tracer_pid: int = 0,
        seccomp: int = 0,
        threads: Iterable[int] | None = None,
        children: Sequence[int] = (),
        descriptors: Mapping[int, FakeDescriptor] | None = None,
        maps: str = "",
        smaps: str | None = None,
        namespaces: Mapping[str, int] | None = None,
        cgroup: str = "0::/\n",
        mountinfo: str = "22 22 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n",
        cmdline: Sequence[str] = ("task",),
        exe: str | None = "/usr/bin/task",
        cwd: str | None = "/",
    ) -> None:
        """Add a process. Its threads are ``threads``, else the main thread alone."""
        tids = tuple(threads) if threads is not None else (pid,)
        group = process_group if process_group is not None else pid
        session_id = session if session is not None else pid
        for tid in tids:
            stat = (
                f"{tid} ({comm}) {state} {ppid} {group} {session_id} {tty} -1 {flags} 100 0 0 0"
                f" 1 1 0 0 20 0 {len(tids)} 0 {start_ticks} 4096 1"
                f"{' 0' * 28}\n"
            )
            own = tuple(ns_pids) if ns_pids is not None and tid == pid else (tid,)
            status = _status(
                comm,
                tid,
                state=state,
                tgid=pid,
                ppid=ppid,
                tracer_pid=tracer_pid,
                uid=uid,
                ns_pids=own,
                threads=len(tids),
                seccomp=seccomp,
            )
            thread = self.root / str(pid) / "task" / str(tid)
            self._write(thread, stat=stat, status=status, comm=f"{comm}\n")
            self._write(thread, maps=maps, smaps=maps if smaps is None else smaps)
            mine = " ".join(map(str, children)) if tid == tids[0] else ""
            self._write(thread, children=mine)
            if tid == tids[0]:
                process = self.root / str(pid)
                self._write(process, stat=stat, status=status, comm=f"{comm}\n")
                self._write(process, maps=maps, smaps=maps if smaps is None else smaps)
        process = self.root / str(pid)
        self._write(process, cgroup=cgroup, mountinfo=mountinfo)
        self._write(process, cmdline="".join(f"{word}\0" for word in cmdline))
        links = {"exe": exe, "cwd": cwd, "root": "/"}
        links |= {f"ns/{name}": f"{name}:[{ino}]" for name, ino in (namespaces or {}).items()}
        for folder in ("fd", "fdinfo", "ns"):
            (process / folder).mkdir()
        for fd, one in (descriptors or {}).items():
            links[f"fd/{fd}"] = one.target
            lines = [f"pos:\t{one.pos}", f"flags:\t{one.flags:08o}", f"mnt_id:\t{one.mnt_id}"]
            lines += [f"ino:\t{one.inode}", *one.extra]
            self._write(process / "fdinfo", **{str(fd): "".join(f"{line}\n" for line in lines)})
        for name, target in links.items():
            if target is not None:
                (process / name).symlink_to(target)

    def _write(self, folder: Path, **files: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(os.fsencode(content))


def _status(
    comm: str,
    tid: int,
    *,
    state: str,
    tgid: int,
    ppid: int,
    tracer_pid: int,
    uid: int,
    ns_pids: Sequence[int],
    threads: int,
    seccomp: int,
) -> str:
    name = comm.replace("\\", "\\\\").replace("\n", "\\n")
    ids = "\t".join([str(uid)] * 4)
    chain = "\t".join(map(str, ns_pids))
    return (
        f"Name:\t{name}\nUmask:\t0022\nState:\t{state} (whatever)\nTgid:\t{tgid}\nNgid:\t0\n"
        f"Pid:\t{tid}\nPPid:\t{ppid}\nTracerPid:\t{tracer_pid}\nUid:\t{ids}\nGid:\t{ids}\n"
        f"FDSize:\t64\nGroups:\t \nNStgid:\t{chain}\nNSpid:\t{chain}\nNSpgid:\t{chain}\n"
        f"NSsid:\t{chain}\nVmSize:\t    4096 kB\nVmRSS:\t    1024 kB\nVmSwap:\t       0 kB\n"
        f"Threads:\t{threads}\nCapEff:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t{seccomp}\n"
        f"Cpus_allowed_list:\t0-3\n"
    )
