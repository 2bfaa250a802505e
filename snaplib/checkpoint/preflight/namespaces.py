"""Namespaces of a task that differ from those CRIU runs in, or among its members."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snaplib.checkpoint.preflight.obstacle import Obstacle
    from snaplib.checkpoint.preflight.scene import Member, Scene

__all__ = ["check_nested_namespaces", "check_root_namespaces"]

#: Kinds that CRIU dumps only if all members share the root's or CRIU's own.
_NOT_NESTED = ("pid", "user", "ipc", "uts", "cgroup", "time", "mnt")

_REMEDY = "attach to the whole container from within it, or launch the task with `snaplib run`"


def check_root_namespaces(member: Member, scene: Scene) -> Iterator[Obstacle]:
    """Find namespaces of the root with which it cannot be dumped or restored."""
    if member is not scene.root_member:
        return
    own = {
        kind
        for kind, inode in member.namespaces.items()
        if scene.dumper_namespaces.get(kind, inode) != inode
    }
    if "user" in own:
        yield _fatal(
            member,
            "user-namespace",
            f"it has a user namespace of its own ({member.namespaces['user']})",
            "run it as a plain user instead, without unshare --user or rootless containers",
        )
    if "mnt" in own:
        yield _fatal(
            member,
            "mount-namespace",
            f"it has a mount namespace of its own ({member.namespaces['mnt']}): a restore has not"
            " its file systems",
            _REMEDY,
        )
    if "pid" in own and member.ns_pid != 1:
        yield _fatal(
            member,
            "pid-namespace",
            f"it is in a PID namespace of which it is not the first process ({member.ns_pid})",
            _REMEDY,
        )
    if "net" in own and scene.interfaces:
        yield _fatal(
            member,
            "network-namespace",
            "it has a network namespace of its own with the interfaces"
            f" {', '.join(scene.interfaces)}: a restore cannot connect them again",
            "run it in the host's network, or in a network namespace with the loopback only",
        )


def check_nested_namespaces(member: Member, scene: Scene) -> Iterator[Obstacle]:
    """Find members in other namespaces than the root."""
    later = member.namespaces.get("time_for_children")
    if later is not None and later != member.namespaces.get("time"):
        yield _fatal(
            member,
            "time-namespace",
            "it has made a time namespace for its children, in which it is not itself",
            "enter the time namespace before the task starts (unshare --time --fork)",
        )
    root = scene.root_member
    if member is root:
        return
    for kind in _NOT_NESTED:
        inode = member.namespaces.get(kind)
        if inode is None or inode in (
            root.namespaces.get(kind, inode),
            scene.dumper_namespaces.get(kind),
        ):
            continue
        yield _fatal(
            member,
            "nested-namespace",
            f"it is in another {kind} namespace ({inode}) than the task's root",
            "run programs that make namespaces (containers, sandboxes, browsers) outside the task",
        )


def _fatal(member: Member, code: str, message: str, remedy: str) -> Obstacle:
    return member.obstacle("fatal", code, "process", message, remedy)
