"""The open descriptors of a process: `/proc/PID/fd` and `/proc/PID/fdinfo`.

The formats are those of proc_pid_fd(5) and proc_pid_fdinfo(5).
"""

from __future__ import annotations

import errno
import os
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Descriptor", "parse_fdinfo", "read_descriptors"]

#: A seq_file shorter than what it was asked for has been read to its end.
_READ_BYTES = 4096

#: Most descriptors have no extra lines; they share this one.
_NOTHING: Mapping[str, tuple[str, ...]] = MappingProxyType({})


@attrs.frozen
class Descriptor:
    """One open descriptor of a process.

    Attributes:
        fd: Its number.
        target: What the link in `/proc/PID/fd` says: a path, which may end in `` (deleted)``, or
            ``socket:[INODE]``, ``pipe:[INODE]``, ``anon_inode:[eventpoll]`` and the like.
        flags: Status and creation flags of open(2), with ``O_CLOEXEC``.
        pos: Position in the file, in bytes.
        mnt_id: Mount of the file, as in `/proc/PID/mountinfo`.
        inode: Inode of the file; None on kernels before 5.14, which do not tell it.
        extra: The other lines of `fdinfo`, by their key. A line comes without its key, and a key
            may have several lines: ``{"tfd": ("5 events: 19 ...", "6 events: 1 ...")}``.
    """

    fd: int
    target: str
    flags: int
    pos: int
    mnt_id: int
    inode: int | None
    extra: Mapping[str, tuple[str, ...]]

    @property
    def close_on_exec(self) -> bool:
        """Whether execve(2) closes it."""
        return bool(self.flags & os.O_CLOEXEC)

    @property
    def readable(self) -> bool:
        """Whether it may be read from."""
        return self.flags & os.O_ACCMODE in (os.O_RDONLY, os.O_RDWR) and not self.path_only

    @property
    def writable(self) -> bool:
        """Whether it may be written to."""
        return self.flags & os.O_ACCMODE in (os.O_WRONLY, os.O_RDWR) and not self.path_only

    @property
    def path_only(self) -> bool:
        """Whether it was opened with ``O_PATH``."""
        return bool(self.flags & os.O_PATH)


def parse_fdinfo(fd: int, target: str, content: bytes) -> Descriptor:
    """Make the record of a descriptor from its link's text and the content of its `fdinfo`.

    Raises:
        ValueError: It has not the form of proc_pid_fdinfo(5).
    """
    pos = flags = mnt_id = inode = None
    extra: dict[str, tuple[str, ...]] = {}
    for line in content.split(b"\n"):
        if not line:
            continue
        # Keys end in a colon, but inotify and fanotify say "inotify wd:1 ino:..." in one line.
        key, _, value = line.partition(b":")
        if key == b"pos" and pos is None:
            pos = int(value)
        elif key == b"flags" and flags is None:
            flags = int(value, 8)
        elif key == b"mnt_id" and mnt_id is None:
            mnt_id = int(value)
        elif key == b"ino" and inode is None:
            inode = int(value)
        else:
            word, _, rest = line.partition(b" ")
            if b":" not in word and b":" in rest:
                key, value = word, rest
            name = os.fsdecode(key).strip()
            extra[name] = (*extra.get(name, ()), os.fsdecode(value).strip())
    if flags is None or pos is None:
        raise ValueError(f"fdinfo of descriptor {fd} has no flags or pos: {content[:80]!r}")
    return Descriptor(
        fd=fd,
        target=target,
        flags=flags,
        pos=pos,
        # Linux before 3.15 has no mnt_id; a fake tree may leave it out.
        mnt_id=-1 if mnt_id is None else mnt_id,
        inode=inode,
        extra=MappingProxyType(extra) if extra else _NOTHING,
    )


def read_descriptors(process_folder: str) -> tuple[Descriptor, ...]:
    """Read all descriptors of a process, ascending; those closed meanwhile are left out.

    Args:
        process_folder: Such as ``/proc/1`` or ``/proc/1/task/1``.

    Raises:
        OSError: The folder is not there, or not for us to read.
    """
    found: list[Descriptor] = []
    # Two folder descriptors save the walk from the root for each of maybe 20,000 files.
    links = os.open(f"{process_folder}/fd", os.O_RDONLY | os.O_DIRECTORY)
    try:
        infos = os.open(f"{process_folder}/fdinfo", os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(links) as entries:
                names = sorted((entry.name for entry in entries), key=int)
            for name in names:
                try:
                    target = os.readlink(name, dir_fd=links)
                    content = _read_at(name, infos)
                except OSError as error:
                    if error.errno in (errno.ENOENT, errno.ESRCH):
                        continue
                    raise
                found.append(parse_fdinfo(int(name), target, content))
        finally:
            os.close(infos)
    finally:
        os.close(links)
    return tuple(found)


def _read_at(name: str, folder_fd: int) -> bytes:
    descriptor = os.open(name, os.O_RDONLY, dir_fd=folder_fd)
    try:
        content = os.read(descriptor, _READ_BYTES)
        if len(content) == _READ_BYTES:
            while more := os.read(descriptor, 65536):
                content += more
        return content
    finally:
        os.close(descriptor)
