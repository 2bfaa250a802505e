"""Mounts and cgroups that a process sees: `/proc/PID/mountinfo` and `/proc/PID/cgroup`.

The formats are those of proc_pid_mountinfo(5) and cgroups(7).
"""

from __future__ import annotations

import os
import re

import attrs

__all__ = ["CgroupMembership", "Mount", "parse_cgroups", "parse_mountinfo"]

_OCTAL = re.compile(rb"\\([0-7]{3})")


@attrs.frozen
class Mount:
    """One mount in a process's mount namespace.

    Attributes:
        mount_id: Its number, unique in the namespace.
        parent_id: Number of the mount it is on; its own for the root of the tree.
        dev: Device number of the files in it, as ``os.makedev`` makes it.
        root: Folder of the file system that is mounted; ``/`` but for bind mounts.
        mount_point: Where, as the process sees it.
        options: Options of the mount, such as ``ro`` and ``nosuid``.
        propagation: Tags such as ``shared:1`` and ``master:2``; empty for a private mount.
        fs_type: Type of the file system, such as ``ext4`` or ``fuse.sshfs``.
        source: Device or other source; file systems without one say anything here.
        super_options: Options of the file system.
    """

    mount_id: int
    parent_id: int
    dev: int
    root: str
    mount_point: str
    options: tuple[str, ...]
    propagation: tuple[str, ...]
    fs_type: str
    source: str
    super_options: tuple[str, ...]


@attrs.frozen
class CgroupMembership:
    """The cgroup of a process in one hierarchy.

    Attributes:
        hierarchy_id: Number of the hierarchy; 0 for cgroup v2.
        controllers: Its controllers (v1), or ``name=...`` of one without; empty for cgroup v2.
        path: The cgroup's folder under the hierarchy's mount point, from the root of this
            process's cgroup namespace.
    """

    hierarchy_id: int
    controllers: tuple[str, ...]
    path: str


def parse_mountinfo(content: bytes) -> tuple[Mount, ...]:
    """Parse the content of a `mountinfo` file, in the order of mounting.

    Raises:
        ValueError: It has not the form of proc_pid_mountinfo(5).
    """
    return tuple(_mount(line) for line in content.split(b"\n") if line)


def parse_cgroups(content: bytes) -> tuple[CgroupMembership, ...]:
    """Parse the content of a `cgroup` file.

    Raises:
        ValueError: It has not the form of cgroups(7).
    """
    memberships = []
    for line in content.split(b"\n"):
        if not line:
            continue
        # A controller has no colon in its name; the path may.
        hierarchy, controllers, path = line.split(b":", 2)
        memberships.append(
            CgroupMembership(
                hierarchy_id=int(hierarchy),
                controllers=_comma_list(controllers),
                path=_text(path),
            )
        )
    return tuple(memberships)


def _mount(line: bytes) -> Mount:
    # Spaces inside fields are printed as \040, so the separator " - " is unambiguous.
    left, separator, right = line.partition(b" - ")
    fields, tail = left.split(b" "), right.split(b" ")
    if not separator or len(fields) < 6 or len(tail) < 3:
        raise ValueError(f"not a line of mountinfo: {line[:80]!r}")
    major, _, minor = fields[2].partition(b":")
    return Mount(
        mount_id=int(fields[0]),
        parent_id=int(fields[1]),
        dev=os.makedev(int(major), int(minor)),
        root=_text(fields[3]),
        mount_point=_text(fields[4]),
        options=_comma_list(fields[5]),
        propagation=tuple(_text(field) for field in fields[6:] if field),
        fs_type=_text(tail[0]),
        source=_text(tail[1]),
        super_options=_comma_list(tail[2]),
    )


def _text(escaped: bytes) -> str:
    """Undo the octal escapes of blanks and backslashes."""
    if b"\\" in escaped:
        escaped = _OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), escaped)
    return os.fsdecode(escaped)


def _comma_list(value: bytes) -> tuple[str, ...]:
    return tuple(_text(part) for part in value.split(b",") if part)
