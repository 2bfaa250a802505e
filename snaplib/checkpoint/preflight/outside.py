"""Looks at processes outside the task: who holds its pipes, what they are called, who is lost."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from snaplib.checkpoint.preflight.scene import Holder, Stranger
from snaplib.kernel.descriptors import parse_fdinfo

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from snaplib.checkpoint.preflight.scene import Member, Scene
    from snaplib.kernel.procfs import ProcFs

__all__ = ["find_holders", "find_names", "find_strangers"]


def find_holders(
    procfs: ProcFs, targets: Collection[str], members: Collection[int]
) -> dict[str, tuple[Holder, ...]]:
    """Find the processes outside the task that have one of these targets open; children born meanwhile are not.

    All descriptors of the machine are looked at, so it is done only when there are targets.
    """
    found: dict[str, list[Holder]] = {}
    if targets:
        for pid in procfs.pids():
            if pid not in members:
                # It may have ended, or be someone else's.
                with contextlib.suppress(OSError):
                    held = tuple(_held(procfs, pid, targets))
                    if held and _has_left(procfs, pid, members):
                        for target, holder in held:
                            found.setdefault(target, []).append(holder)
    return {target: tuple(holders) for target, holders in found.items()}


def find_names(procfs: ProcFs, scene: Scene) -> dict[int, str]:
    """Return the names of the processes outside the task of which messages may speak."""
    pids = {scene.root_member.stat.session}
    for member in scene.members.values():
        pids.update(member.tracers.values())
        for descriptor in member.descriptors:
            pids.update(int(word) for word in descriptor.extra.get("Pid", ()))
            for line in descriptor.extra.get("lock", ()):
                pids.update(int(word) for word in line.split()[4:5] if word.isdigit())
            if descriptor.target.startswith("/proc/"):
                word = descriptor.target.split("/")[2]
                pids.update([int(word)] if word.isdigit() else [])
    found = {}
    for pid in pids.difference(scene.members):
        if pid > 0:
            with contextlib.suppress(OSError):
                found[pid] = procfs.comm(pid)
    return found


def find_strangers(
    procfs: ProcFs, members: Mapping[int, Member], root: int, *, in_namespace: bool
) -> tuple[Stranger, ...]:
    """Find processes that belong to the task without descending from its root.

    In a PID namespace of its own these are the other children of that namespace's init, else
    those whose session is led by a member.
    """
    found = []
    if in_namespace:
        init = members[root].stat.ppid
        for pid in _others_below(procfs, init, members) if init else ():
            with contextlib.suppress(ProcessLookupError):
                if not procfs.stat(pid).zombie and _has_left(procfs, pid, members):
                    found.append(Stranger(pid, procfs.comm(pid), in_namespace=True))
        return tuple(found)
    for pid in procfs.pids():
        if pid not in members:
            with contextlib.suppress(ProcessLookupError):
                one = procfs.stat(pid)
                ours = one.session in members and not one.zombie
                if ours and _has_left(procfs, pid, members):
                    found.append(Stranger(pid, one.comm, in_namespace=False))
    return tuple(found)


def _has_left(procfs: ProcFs, pid: int, members: Collection[int]) -> bool:
    """Whether a process descends from no member: one that does was born after the members were listed.

    Raises:
        ProcessLookupError: It, or one between it and the task, has ended.
    """
    at = pid
    while at > 1 and at not in members:
        at = procfs.stat(at).ppid
    # One that has ended meanwhile may still be there for a moment, without a parent.
    return at not in members and not procfs.stat(pid).zombie


def _others_below(procfs: ProcFs, init: int, members: Collection[int]) -> tuple[int, ...]:
    try:
        if procfs.status(init).ns_pids[-1] != 1:
            return ()
        return tuple(pid for pid in procfs.tree(init)[1:] if pid not in members)
    except OSError:
        return ()


def _held(procfs: ProcFs, pid: int, targets: Collection[str]) -> Iterator[tuple[str, Holder]]:
    folder = f"{procfs.root}/{pid}"
    seen: dict[str, tuple[bool, bool]] = {}
    with os.scandir(f"{folder}/fd") as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                target = os.readlink(entry.path)  # noqa: PTH115 - for each of maybe 100,000
                if target in targets:
                    with open(f"{folder}/fdinfo/{entry.name}", "rb") as file:  # noqa: PTH123
                        one = parse_fdinfo(int(entry.name), target, file.read())
                    reads, writes = seen.get(target, (False, False))
                    seen[target] = reads or one.readable, writes or one.writable
    for target, (reads, writes) in seen.items():
        yield target, Holder(pid, procfs.comm(pid), readable=reads, writable=writes)
