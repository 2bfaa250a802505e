"""Cgroups that can be frozen: where they are mounted, whose they are, and making one for a task.

Cgroup v2 is described in the kernel's Documentation/admin-guide/cgroup-v2.rst, the freezer of
version 1 in Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst. On a hybrid host version 2
is mounted beside version 1, mostly at /sys/fs/cgroup/unified.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import attrs

from snaplib.kernel.procfs import ProcFs

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["TaskCgroup", "find_cgroup"]

#: How long a cgroup whose last process has just ended may still count as busy.
_REMOVE_DEADLINE_S = 1.0

#: How often a task and a cgroup are compared until they agree.
_LOOKS = 4

#: The better one first: it waits in the kernel and needs no second controller.
_VERSIONS: tuple[Literal[1, 2], ...] = (2, 1)


@attrs.frozen
class TaskCgroup:
    """A cgroup with a freezer.

    Attributes:
        path: Its folder.
        version: 2, or 1 for the freezer hierarchy of version 1.
    """

    path: Path
    version: Literal[1, 2]

    @classmethod
    def create(
        cls,
        name: str,
        *,
        versions: Iterable[Literal[1, 2]] = _VERSIONS,
        procfs: ProcFs | None = None,
    ) -> TaskCgroup | None:
        """Make a cgroup for a task inside the one this process is in, so that limits still hold.

        Args:
            name: Name of its folder.
            versions: Versions to try in this order; the first that is mounted and writable is
                taken.
            procfs: Where to read this process's cgroups.

        Returns:
            The cgroup, or None when this process may not make one here.
        """
        found = procfs if procfs is not None else ProcFs()
        for version in versions:
            parent = _folder_of(found, os.getpid(), version)
            if parent is None:
                continue
            cgroup = cls(parent / name, version)
            try:
                cgroup.path.mkdir(exist_ok=True)
            except OSError:
                continue
            if os.access(cgroup.control, os.W_OK) and os.access(cgroup.members_file, os.W_OK):
                return cgroup
            cgroup.remove()
        return None

    @property
    def control(self) -> Path:
        """The file that freezes and thaws."""
        return self.path / ("cgroup.freeze" if self.version == 2 else "freezer.state")

    @property
    def members_file(self) -> Path:
        """The file that lists the processes and moves them in."""
        return self.path / "cgroup.procs"

    def add(self, pid: int) -> None:
        """Move a process with all its threads into it; children born later follow.

        Raises:
            OSError: It may not be moved, or has ended (ESRCH).
        """
        _write(self.members_file, str(pid))

    def holds(self, procfs: ProcFs, pid: int) -> bool:
        """Return whether a whole task is in it.

        Raises:
            ProcessLookupError: The task has ended.
        """
        _, outsiders = _differences(procfs, pid, self)
        return not outsiders or not outsiders & _differences(procfs, pid, self)[1]

    def pids(self) -> set[int]:
        """Return the processes in it and in all cgroups below it."""
        found: set[int] = set()
        for folder, _, _ in os.walk(self.path):
            with contextlib.suppress(FileNotFoundError):
                text = (Path(folder) / "cgroup.procs").read_text()
                found.update(map(int, text.split()))
        return found

    def request(self, *, frozen: bool) -> None:
        """Ask the kernel to freeze or thaw it; freezing takes effect some time later.

        Raises:
            OSError: Not permitted, or it is gone.
        """
        _write(self.control, self.freeze_word if frozen else self.thaw_word)

    @property
    def freeze_word(self) -> str:
        """What asks `control` to freeze."""
        return "1" if self.version == 2 else "FROZEN"

    @property
    def thaw_word(self) -> str:
        """What asks `control` to thaw."""
        return "0" if self.version == 2 else "THAWED"

    def requested(self) -> bool:
        """Return whether it has been asked to freeze, by anybody."""
        return self.control.read_text().strip() not in ("0", "THAWED")

    def frozen(self) -> bool:
        """Return whether all processes in it are frozen."""
        if self.version == 1:
            return self.control.read_text().strip() == "FROZEN"
        return "frozen 1" in (self.path / "cgroup.events").read_text().splitlines()

    def remove(self) -> bool:
        """Remove it once it is empty.

        Returns:
            Whether it is gone; not while processes are in it.
        """
        give_up = time.monotonic() + _REMOVE_DEADLINE_S
        while True:
            try:
                self.path.rmdir()
            except FileNotFoundError:
                return True
            except OSError as error:
                # A process that has just ended is counted until it is reaped.
                waiting = error.errno == errno.EBUSY and not self.pids()
                if not waiting or time.monotonic() > give_up:
                    return False
                time.sleep(0.005)
            else:
                return True


def find_cgroup(procfs: ProcFs, pid: int) -> TaskCgroup | None:
    """Return a cgroup whose only processes are those of a task, if this process may freeze it.

    Args:
        procfs: Where to read their cgroups.
        pid: The task's root.

    Raises:
        ProcessLookupError: The task has ended.
    """
    for version in _VERSIONS:
        folder = _folder_of(procfs, pid, version)
        if folder is None:
            continue
        cgroup = TaskCgroup(folder, version)
        if os.access(cgroup.control, os.W_OK):
            strangers, outsiders = _differences(procfs, pid, cgroup)
            for _ in range(_LOOKS):
                if not (strangers or outsiders):
                    return cgroup
                # Children come and go between two looks; who does not belong is in all of them.
                again = _differences(procfs, pid, cgroup)
                strangers, outsiders = strangers & again[0], outsiders & again[1]
    return None


def _differences(procfs: ProcFs, pid: int, cgroup: TaskCgroup) -> tuple[set[int], set[int]]:
    """Return who is in a cgroup and not in the task, and who is in the task alone.

    Zombies do not count: nothing of them is left to freeze, and version 2 does not list them.
    """
    inside, members = cgroup.pids(), set(procfs.tree(pid))

    def living(pids: set[int]) -> set[int]:
        found = set()
        for one in pids:
            with contextlib.suppress(ProcessLookupError):
                if not procfs.stat(one).zombie:
                    found.add(one)
        return found

    return living(inside - members), living(members - inside)


def _folder_of(procfs: ProcFs, pid: int, version: Literal[1, 2]) -> Path | None:
    """Return the folder of a process's cgroup; None where it is not mounted for us to see."""
    for membership in procfs.cgroups(pid):
        unified = membership.hierarchy_id == 0
        if "/.." in membership.path:
            continue  # outside the cgroup namespace we are in: not to be reached from here
        if not (unified if version == 2 else "freezer" in membership.controllers):
            continue
        for mount in procfs.mounts(os.getpid()):
            fits = (
                mount.fs_type == "cgroup2"
                if unified
                else mount.fs_type == "cgroup" and "freezer" in mount.super_options
            )
            # A container may see a folder of the hierarchy as its root.
            below = os.path.relpath(membership.path, mount.root)
            if fits and not below.startswith(".."):
                return Path(mount.mount_point) / below
    return None


def _write(path: Path, text: str) -> None:
    # One write(2), no creation: the kernel takes each write as one request.
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
