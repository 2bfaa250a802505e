"""What the task's streams are connected to outside: identity, and whether the task may have it directly."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snaplib.kernel.isolation import same_open_file
from snaplib.session.nsinit.ends import kind_of

__all__ = ["began_anew", "identity", "open_direct", "same_output"]

#: /dev/null, zero, full, random and the like (Documentation/admin-guide/devices.txt): CRIU opens
#: them by path.
_MEMORY_MAJOR = 1
_KEPT_FLAGS = os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK | os.O_DIRECT | os.O_SYNC


def identity(fd: int) -> dict[str, Any]:
    """Describe an outer descriptor, so that a later run can tell whether it was given the same
    thing.

    Returns:
        The fields of `snaplib.session.record.OuterRecord`.
    """
    kind = kind_of(fd)
    if kind == "closed":
        return {"kind": kind}
    found = os.fstat(fd)
    start_bytes = 0
    if kind == "file":
        with contextlib.suppress(OSError):
            start_bytes = os.lseek(fd, 0, os.SEEK_CUR)
    path = str(Path(f"/proc/self/fd/{fd}").readlink())
    return {
        "kind": kind,
        "path": path if path.startswith("/") else None,
        "device": found.st_rdev if kind in ("terminal", "device") else found.st_dev,
        "inode": found.st_ino,
        "start_bytes": start_bytes,
        "delivered_bytes": 0,
        "appends": bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND),
    }


def began_anew(was: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether an input is a pipe made anew: a pipeline that was run again, from its beginning.

    A named pipe or a socket may be served by a program that goes on where it was.
    """
    return (
        was["kind"] == now["kind"] == "pipe"
        and was["path"] is None
        and now["path"] is None
        and was["inode"] != now["inode"]
    )


def same_output(first: int, second: int) -> bool:
    """Whether what is written to two descriptors lands in one place, in the order it was written."""
    kind = kind_of(first)
    if kind != kind_of(second) or kind == "closed":
        return False
    if same_open_file(first, second):
        return True
    one, other = os.fstat(first), os.fstat(second)
    if (one.st_dev, one.st_ino) != (other.st_dev, other.st_ino):
        return False
    # Two opened files have two positions and overwrite each other, unless both append.
    return kind != "file" or all(
        fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND for fd in (first, second)
    )


def open_direct(fd: int) -> int | None:
    """Open the same file or device anew, by its path, for the task to have.

    It must be opened in the session's mount namespace: CRIU refuses descriptors whose mount it does
    not find there ("Can't lookup mount").

    Returns:
        The new descriptor at the same position; None when the path leads elsewhere, so that it must
        be relayed.
    """
    kind = kind_of(fd)
    if kind == "closed":
        return os.open("/dev/null", os.O_RDWR)
    found = os.fstat(fd)
    if kind == "device" and not (
        stat.S_ISCHR(found.st_mode) and os.major(found.st_rdev) == _MEMORY_MAJOR
    ):
        # Nothing better can be done; preflight tells what CRIU will say.
        return os.dup(fd)
    path = Path(f"/proc/self/fd/{fd}").readlink()
    try:
        seen = path.stat()
        if (seen.st_dev, seen.st_ino) != (found.st_dev, found.st_ino):
            return None
        flags = fcntl.fcntl(fd, fcntl.F_GETFL) & _KEPT_FLAGS
        direct = os.open(path, flags | os.O_NOCTTY)
    except OSError:
        return None
    if kind == "file":
        os.lseek(direct, os.lseek(fd, 0, os.SEEK_CUR), os.SEEK_SET)
    return direct
