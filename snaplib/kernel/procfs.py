"""The processes of this machine, as /proc tells them.

Everything that snaplib knows from /proc goes through a `ProcFs`, whose root is injected: parsers
are tested on a made-up tree in a temporary folder. A method reads one file or folder and gives
records that cannot change. Of a running process they are one look at something that moves; nothing
but a freeze makes two looks agree.

All methods that take a pid raise ``ProcessLookupError`` when there is no such process (any more)
and ``PermissionError`` when this process may not look at it. The pid may also be a thread's.
"""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from snaplib.kernel.descriptors import Descriptor, read_descriptors
from snaplib.kernel.maps import Mapping, parse_maps, parse_smaps
from snaplib.kernel.mounts import CgroupMembership, Mount, parse_cgroups, parse_mountinfo
from snaplib.kernel.process import ProcessStat, ProcessStatus, parse_stat, parse_status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["ProcFs"]

#: Rounds after which a tree that never holds still is given as it was last seen.
_TREE_ROUNDS = 32


class ProcFs:
    """Reads /proc, or a folder that looks like it.

    Args:
        root: Where it is mounted. Pids are those of the PID namespace it was mounted in.
    """

    def __init__(self, root: str | os.PathLike[str] = "/proc") -> None:
        self.root = Path(root)
        self._root = os.fspath(self.root)

    def __repr__(self) -> str:
        return f"ProcFs({self._root!r})"

    def exists(self, pid: int) -> bool:
        """Return whether there is such a process; zombies count."""
        return (self.root / str(pid)).exists()

    def pids(self) -> tuple[int, ...]:
        """Return the pids of all visible processes, ascending."""
        return _numeric_names(self._root)

    def stat(self, pid: int) -> ProcessStat:
        """Return what `stat` says of a process or thread."""
        return parse_stat(self._read(pid, "stat"))

    def thread_stat(self, pid: int, tid: int) -> ProcessStat:
        """Return what `stat` says of one thread of a process."""
        return parse_stat(self._read(pid, f"task/{tid}/stat"))

    def status(self, pid: int) -> ProcessStatus:
        """Return what `status` says of a process or thread."""
        return parse_status(self._read(pid, "status"))

    def thread_status(self, pid: int, tid: int) -> ProcessStatus:
        """Return what `status` says of one thread of a process."""
        return parse_status(self._read(pid, f"task/{tid}/status"))

    def threads(self, pid: int) -> tuple[int, ...]:
        """Return the ids of the threads of a process, ascending; a lone zombie has one."""
        try:
            return _numeric_names(f"{self._root}/{pid}/task")
        except OSError as error:
            raise self._explained(error, pid) from None

    def children(self, pid: int) -> tuple[int, ...]:
        """Return the pids of the children of all threads of a process, ascending.

        Uses `task/TID/children` where the kernel has it (CONFIG_PROC_CHILDREN), else looks at
        every process. Children that end meanwhile may hide others: see `tree`.
        """
        found: set[int] = set()
        threads = self.threads(pid)
        for tid in threads:
            try:
                found.update(map(int, self._read(pid, f"task/{tid}/children").split()))
            except ProcessLookupError:
                if self._has_children_files(pid):
                    continue
                return tuple(sorted(self._parents_to_children().get(pid, ())))
        return tuple(sorted(found))

    def tree(self, pid: int) -> tuple[int, ...]:
        """Return the pids of a process and all its descendants, parents before children.

        Looks again until two looks agree, so that a child missed because its sibling ended while
        the list was read is found; a tree that forks without end is given as last seen.
        A process whose parent has ended belongs to another parent and is not found.
        """
        last = self._tree_once(pid)
        for _ in range(_TREE_ROUNDS):
            again = self._tree_once(pid)
            if again == last:
                break
            last = again
        return last

    def maps(self, pid: int) -> tuple[Mapping, ...]:
        """Return the mappings of a process in address order, without what only `smaps` tells.

        Empty for zombies and kernel threads. A process whose main thread has ended is read
        through another thread.
        """
        return parse_maps(self._read_memory(pid, "maps"))

    def smaps(self, pid: int) -> tuple[Mapping, ...]:
        """Return the mappings of a process with their resident sizes and VmFlags.

        The kernel walks all page tables for it: 20 to 70 ms a GB of 4 KiB pages.
        """
        return parse_smaps(self._read_memory(pid, "smaps"))

    def descriptors(self, pid: int) -> tuple[Descriptor, ...]:
        """Return the open descriptors of a process, ascending.

        Descriptors closed while they are read are left out. Empty for zombies; a process whose
        main thread has ended is read through another thread.
        """
        try:
            if found := self._descriptors(str(pid), pid):
                return found
        except PermissionError:
            # The folder of an ended main thread is root's alone, whoever owns the process.
            if not self.stat(pid).zombie:
                raise
        for tid in self._living_threads(pid):
            return self._descriptors(f"{pid}/task/{tid}", pid)
        return ()

    def namespaces(self, pid: int) -> dict[str, int]:
        """Return the inode of each namespace of a process by its name (``pid``, ``net``, ...).

        ``pid_for_children`` is left out while the process has no child in it.
        """
        found: dict[str, int] = {}
        folder = f"{self._root}/{pid}/ns"
        try:
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries)
        except OSError as error:
            raise self._explained(error, pid) from None
        for name in names:
            target = self._link(pid, f"ns/{name}")
            if target is not None and target.endswith("]"):
                found[name] = int(target[target.rindex("[") + 1 : -1])
        return found

    def mounts(self, pid: int) -> tuple[Mount, ...]:
        """Return the mounts in the mount namespace of a process, those under its root folder."""
        return parse_mountinfo(self._read(pid, "mountinfo"))

    def cgroups(self, pid: int) -> tuple[CgroupMembership, ...]:
        """Return the cgroup of a process in each hierarchy."""
        return parse_cgroups(self._read(pid, "cgroup"))

    def exe(self, pid: int) -> str | None:
        """Return the path of the program, perhaps with `` (deleted)``; None without one.

        Kernel threads and zombies have none.
        """
        return self._link(pid, "exe")

    def cwd(self, pid: int) -> str | None:
        """Return the working directory, perhaps with `` (deleted)``; None for zombies."""
        return self._link(pid, "cwd")

    def root_dir(self, pid: int) -> str | None:
        """Return the root directory (chroot(2)); None for zombies."""
        return self._link(pid, "root")

    def cmdline(self, pid: int) -> tuple[str, ...]:
        """Return the program's arguments, or what it has put in their place; empty for zombies."""
        content = self._read(pid, "cmdline")
        return tuple(map(os.fsdecode, content.removesuffix(b"\0").split(b"\0"))) if content else ()

    def comm(self, pid: int) -> str:
        """Return the name of a process's main thread, or of a thread."""
        return os.fsdecode(self._read(pid, "comm").removesuffix(b"\n"))

    def _tree_once(self, pid: int) -> tuple[int, ...]:
        whole_table = None if self._has_children_files(pid) else self._parents_to_children()
        found = {pid: None}
        for one in _growing(found):
            if whole_table is not None:
                children: Iterable[int] = sorted(whole_table.get(one, ()))
            else:
                try:
                    children = self.children(one)
                except ProcessLookupError:
                    children = ()
            found.update(dict.fromkeys(children))
        if not self.exists(pid):
            raise ProcessLookupError(errno.ESRCH, f"no process {pid}")
        return tuple(found)

    def _has_children_files(self, pid: int) -> bool:
        # Of a thread that surely is there: ourselves, when this is the real /proc.
        return any(
            os.access(f"{self._root}/{base}/children", os.F_OK)
            for base in ("thread-self", f"{pid}/task/{pid}")
        )

    def _parents_to_children(self) -> dict[int, list[int]]:
        table: dict[int, list[int]] = {}
        for pid in self.pids():
            try:
                table.setdefault(self.stat(pid).ppid, []).append(pid)
            except ProcessLookupError:
                continue
        return table

    def _living_threads(self, pid: int) -> Iterator[int]:
        for tid in self.threads(pid):
            try:
                if tid != pid and not self.thread_stat(pid, tid).zombie:
                    yield tid
            except ProcessLookupError:
                continue

    def _read_memory(self, pid: int, name: str) -> bytes:
        content = self._read(pid, name)
        if not content:
            # A main thread that has ended has no memory map, though its process lives on.
            for tid in self._living_threads(pid):
                return self._read(pid, f"task/{tid}/{name}")
        return content

    def _descriptors(self, base: str, pid: int) -> tuple[Descriptor, ...]:
        try:
            return read_descriptors(f"{self._root}/{base}")
        except OSError as error:
            raise self._explained(error, pid) from None

    def _read(self, pid: int, name: str) -> bytes:
        try:
            with io.FileIO(f"{self._root}/{pid}/{name}") as file:
                return file.readall()
        except OSError as error:
            raise self._explained(error, pid) from None

    def _link(self, pid: int, name: str) -> str | None:
        try:
            return os.fspath((self.root / str(pid) / name).readlink())
        except OSError as error:
            if error.errno == errno.ENOENT and self.exists(pid):
                return None
            raise self._explained(error, pid) from None

    def _explained(self, error: OSError, pid: int) -> OSError:
        """Give one error for the two ways in which /proc says that a process is gone."""
        if error.errno in (errno.ENOENT, errno.ESRCH):
            return ProcessLookupError(errno.ESRCH, f"no process {pid}")
        return error


def _growing(found: dict[int, None]) -> Iterator[int]:
    """Yield the keys of a dict that grows meanwhile, in the order they were added."""
    position = 0
    while position < len(found):
        batch = list(found)[position:]
        position = len(found)
        yield from batch


def _numeric_names(folder: str) -> tuple[int, ...]:
    with os.scandir(folder) as entries:
        return tuple(sorted(int(entry.name) for entry in entries if entry.name.isdigit()))
