"""Open files: devices, deleted files, files whose path or mount has gone, files in /proc.

The rules are those of CRIU's criu/files.c and criu/files-reg.c.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from snaplib.kernel.filesystems import MQUEUE_MAGIC, SECRETMEM_MAGIC

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snaplib.checkpoint.preflight.obstacle import Obstacle
    from snaplib.checkpoint.preflight.scene import FileFacts, Member, Scene
    from snaplib.kernel.descriptors import Descriptor

__all__ = ["check_deleted", "check_devices", "check_paths", "check_proc_files", "is_terminal"]

#: Major and minor numbers (Documentation/admin-guide/devices.txt).
_MEMORY_MAJOR = 1
_TTY_MAJOR = 4
_TTY_AUX_MAJOR = 5
_MISC_MAJOR = 10
_PTY_MAJORS = range(128, 144)
_SERIAL_MAJORS = (188, 204)
_AUTOFS_MINOR = 235
_TUN_MINOR = 200

_DELETED = " (deleted)"


def is_terminal(rdev: int) -> bool:
    """Return whether CRIU takes this device for a terminal."""
    major, minor = os.major(rdev), os.minor(rdev)
    if major == _TTY_MAJOR:
        return 1 <= minor <= 63
    if major == _TTY_AUX_MAJOR:
        return minor <= 2
    return major in _PTY_MAJORS or major in _SERIAL_MAJORS


def check_devices(member: Member, _scene: Scene) -> Iterator[Obstacle]:
    """Find device nodes that CRIU cannot dump: all but memory devices, terminals and autofs."""
    for descriptor, facts in _with_facts(member):
        major, minor = os.major(facts.rdev), os.minor(facts.rdev)
        if stat.S_ISBLK(facts.mode):
            yield _fatal(
                member,
                descriptor,
                "block-device",
                f"the block device {descriptor.target} ({major}:{minor}), which CRIU cannot dump",
                "use a file on a mounted file system",
            )
        if not stat.S_ISCHR(facts.mode):
            continue
        if major == _MISC_MAJOR and minor == _TUN_MINOR:
            yield _fatal(
                member,
                descriptor,
                "tun-device",
                f"{descriptor.target}: a tun device can be dumped with its own network"
                " namespace only",
                "keep the tunnel in a process outside the task",
            )
        elif not (
            major == _MEMORY_MAJOR
            or (major == _MISC_MAJOR and minor == _AUTOFS_MINOR)
            or is_terminal(facts.rdev)
        ):
            yield _fatal(
                member,
                descriptor,
                "device",
                f"the device {descriptor.target} ({major}:{minor}), which CRIU cannot dump",
                "close it before the dump, or keep it in a process outside the task",
            )


def check_deleted(member: Member, scene: Scene) -> Iterator[Obstacle]:
    """Find deleted files that are too large to keep in the snapshot, open or mapped."""
    found = [(f"fd {one.fd}", one.target, facts) for one, facts in _with_facts(member)]
    found += [
        (f"mapping {one.start:x}-{one.end:x}", one.path, member.mapped_files[one.start])
        for one in member.mappings
        if one.start in member.mapped_files
    ]
    for subject, path, facts in found:
        if (
            stat.S_ISREG(facts.mode)
            and facts.links == 0
            and facts.dev != scene.internal_dev
            and facts.allocated_bytes > scene.ghost_limit_bytes
        ):
            yield member.obstacle(
                "fatal",
                "deleted-file-too-large",
                subject,
                f"{path.removesuffix(_DELETED)} (inode {facts.inode}) is deleted and has"
                f" {facts.allocated_bytes} bytes, more than the limit of"
                f" {scene.ghost_limit_bytes}",
                "keep the file under a name until the task ends",
            )


def check_paths(member: Member, scene: Scene) -> Iterator[Obstacle]:
    """Find files whose mount is not there, or whose path leads elsewhere."""
    own_mounts = scene.root_member.namespaces.get("mnt") == scene.dumper_namespaces.get("mnt")
    for descriptor, facts in _with_facts(member):
        path = descriptor.target
        if facts.dev == scene.internal_dev or not path.startswith("/"):
            continue
        if facts.file_system is not None:
            special = {
                MQUEUE_MAGIC: ("message-queue", "a POSIX message queue", "a pipe or a socket"),
                SECRETMEM_MAGIC: ("secret-memory", "secret memory", "ordinary memory"),
            }.get(facts.file_system)
            if special:
                code, what, instead = special
                yield _fatal(
                    member,
                    descriptor,
                    code,
                    f"{what} ({path.removesuffix(_DELETED)}), which CRIU cannot dump",
                    f"have the program use {instead}",
                )
                continue
        if own_mounts and descriptor.mnt_id not in scene.mounts and not _external(facts, scene):
            yield _fatal(
                member,
                descriptor,
                "mount-gone",
                f"{path} is on mount {descriptor.mnt_id}, which the task's mount namespace does"
                " not have (any more)",
                "close it before the dump, or mount the file system again and reopen it",
            )
        elif facts.path_leads_to is not None:
            if facts.path_leads_to != (facts.dev, facts.inode):
                yield _fatal(
                    member,
                    descriptor,
                    "path-replaced",
                    f"{path} leads to inode {facts.path_leads_to[1]} now, open is {facts.inode}",
                    "close and reopen it, or take away what is mounted over it",
                )
        elif path.endswith(_DELETED) and facts.links > 0 and stat.S_ISREG(facts.mode):
            yield member.obstacle(
                "warning",
                "link-lost",
                f"fd {descriptor.fd}",
                f"{path.removesuffix(_DELETED)} (inode {facts.inode}) has lost this name and"
                f" has {facts.links} other(s): the final dump leaves a file link_remap.N beside it"
                " that a restore needs, and a dump that lets the task run cannot be restored",
                "keep the file under its name until the task ends",
            )


def check_proc_files(member: Member, scene: Scene) -> Iterator[Obstacle]:
    """Find open files in /proc of processes outside the task, which a restore does not find."""
    pids = {one.ns_pid if scene.own_proc else one.pid for one in scene.members.values()}
    if scene.own_proc:
        pids.add(1)
    for descriptor in member.descriptors:
        mount = scene.mounts.get(descriptor.mnt_id)
        if mount is None or mount.fs_type != "proc":
            continue
        inside = descriptor.target.removeprefix(mount.mount_point.rstrip("/") + "/")
        words = inside.removesuffix(_DELETED).split("/")
        if not words[0].isdigit():
            continue
        if int(words[0]) in pids:
            # Files are opened before threads are made, but for the main thread.
            if words[1:2] == ["task"] and len(words) > 2 and words[2] != words[0]:
                yield _fatal(
                    member,
                    descriptor,
                    "proc-thread",
                    f"{descriptor.target} is of a thread: a restore does not find it",
                    "close it before the dump",
                )
        # CRIU gives back a file of a process that has ended: it makes one that ends again.
        elif scene.own_proc or int(words[0]) in scene.names:
            who = f"pid {words[0]}" if scene.own_proc else scene.name_of(int(words[0]))
            yield _fatal(
                member,
                descriptor,
                "proc-outside",
                f"{descriptor.target} is of {who}, which is not part of the task: a restore does"
                " not find it",
                "close it before the dump",
            )


def _external(facts: FileFacts, scene: Scene) -> bool:
    """Return whether it is a terminal that is handed over at the restore."""
    return f"tty[{facts.rdev:x}:{facts.dev:x}]" in scene.streams


def _with_facts(member: Member) -> Iterator[tuple[Descriptor, FileFacts]]:
    for descriptor in member.descriptors:
        facts = member.files.get(descriptor.fd)
        if facts is not None:
            yield descriptor, facts


def _fatal(
    member: Member, descriptor: Descriptor, code: str, message: str, remedy: str
) -> Obstacle:
    return member.obstacle("fatal", code, f"fd {descriptor.fd}", message, remedy)
