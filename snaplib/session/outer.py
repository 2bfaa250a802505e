"""What a caller connects a task's standard streams to, and where output goes on in a file after a restore."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any

from snaplib.errors import RestoreFailed, UsageError, WrongType
from snaplib.session.nsinit.ends import kind_of
from snaplib.session.nsinit.outer import began_anew, identity
from snaplib.session.record import Backlog, OuterRecord, StreamRecord, StreamsRecord

__all__ = [
    "LOWEST_FD",
    "Outer",
    "Target",
    "check_output",
    "place_input",
    "place_output",
    "place_streams",
]

_STREAMS = ("standard input", "standard output", "standard error")

#: None inherits, a path is opened, subprocess.DEVNULL and (for stderr) subprocess.STDOUT mean what
#: they mean there.
Target = str | bytes | Path | int | IO[Any] | None

#: What is passed to the init is above the standard ones, which it replaces; a caller whose own
#: are closed would get these numbers for anything it opens.
LOWEST_FD = 3
_MODE = 0o666


class Outer:
    """The three outer descriptors, ours to close.

    Args:
        stdin: For the task's descriptor 0.
        stdout: For 1.
        stderr: For 2.
        append: Open paths given for output at their end instead of emptying them.
        cwd: Where relative paths count from.

    Raises:
        UsageError: A path cannot be opened, or it is nothing that a stream can be connected to.
    """

    def __init__(
        self,
        stdin: Target = None,
        stdout: Target = None,
        stderr: Target = None,
        *,
        append: bool = False,
        cwd: Path | None = None,
    ) -> None:
        self._stack = contextlib.ExitStack()
        self._append = append
        self._cwd = cwd or Path.cwd()
        self.fds: list[int] = []
        #: Which were opened here, for the task to have them directly.
        self.direct: list[int] = []
        try:
            for number, target in enumerate((stdin, stdout, stderr)):
                self._add(number, target)
        except BaseException:
            self.close()
            raise

    @property
    def terminal(self) -> int:
        """The first of the descriptors that is a terminal; -1: none."""
        return next((fd for fd in self.fds if kind_of(fd) == "terminal"), -1)

    def close(self) -> None:
        """Close the descriptors; whoever was given them has its own."""
        self._stack.close()

    def _add(self, number: int, target: Target) -> None:
        if isinstance(target, (str, bytes, os.PathLike)):
            opened = self._open(number, self._cwd / os.fsdecode(target))
            self.direct.append(number)
        elif target == subprocess.DEVNULL:
            opened = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        elif target == subprocess.STDOUT:
            if number != 2:
                raise UsageError("subprocess.STDOUT is for stderr only")
            opened = os.dup(self.fds[1])
            if 1 in self.direct:
                self.direct.append(2)
        else:
            fd = number if target is None else _descriptor(number, target)
            opened = os.dup(fd) if kind_of(fd) != "closed" else os.open(os.devnull, os.O_RDWR)
        moved = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, LOWEST_FD)
        os.close(opened)
        self._stack.callback(os.close, moved)
        self.fds.append(moved)

    def _open(self, number: int, path: Path) -> int:
        flags = os.O_RDONLY
        if number > 0:
            flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if self._append else os.O_TRUNC)
        try:
            return os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY, _MODE)
        except OSError as error:
            raise UsageError(
                f"{path} cannot be opened as {_STREAMS[number]}: {error.strerror}"
            ) from error
        except ValueError as error:
            raise UsageError(
                f"{str(path)!r} cannot be opened as {_STREAMS[number]}: {error}"
            ) from error


def _descriptor(number: int, target: int | IO[Any]) -> int:
    if target == subprocess.PIPE:
        raise UsageError(
            f"subprocess.PIPE is of no use as {_STREAMS[number]}: nobody would have its other end",
            hint="make a pipe with os.pipe() and pass the task's end",
        )
    if not isinstance(target, int):
        try:
            target = target.fileno()
        except AttributeError:
            raise WrongType(
                f"{target!r} is nothing that {_STREAMS[number]} can be connected to",
                hint="pass a path, a descriptor, a file or subprocess.DEVNULL",
            ) from None
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{target!r} has no descriptor to be {_STREAMS[number]}: {error}",
                hint="pass a path, a descriptor, a file or subprocess.DEVNULL",
            ) from error
    if kind_of(target) == "closed":
        raise UsageError(f"descriptor {target}, to be {_STREAMS[number]}, is not open")
    return target


def check_output(record: StreamRecord, fd: int) -> None:
    """Check that what a running task wrote to a file is still there.

    Args:
        record: The stream as it is now.
        fd: The outer descriptor it is to be connected to.

    Raises:
        RestoreFailed: The file is the same, and was emptied.
    """
    now, was = identity(fd), record.outer
    if not _goes_on_in(was, now):
        return
    # The relay writes on at its place: what was emptied may have grown again, and begins with zeros.
    grown = os.fstat(fd).st_size >= was.start_bytes + was.delivered_bytes
    if not grown or _hole_at(fd, was.start_bytes) or _zero_at(fd, was.start_bytes):
        raise _emptied(was, str(now["path"]))


def _hole_at(fd: int, offset: int) -> bool:
    position = os.lseek(fd, 0, os.SEEK_CUR)
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) != offset
    except OSError as error:
        # Nothing but a hole; otherwise this file system tells of none.
        return error.errno == errno.ENXIO
    finally:
        os.lseek(fd, position, os.SEEK_SET)


def _zero_at(fd: int, offset: int) -> bool:
    """Whether a byte is zero: a hole that is smaller than a block has none to be told by.

    Output that begins with a zero byte counts as emptied, too; that is seldom, and unsure.
    """
    try:
        reading = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.pread(reading, 1, offset) == b"\0"
    finally:
        os.close(reading)


def place_output(record: StreamRecord, fd: int, *, captured: bool) -> tuple[dict[str, int], bool]:
    """Decide where a stream's output goes on, and set the file's position.

    Args:
        record: The stream as the snapshot has it.
        fd: The outer descriptor now.
        captured: Whether the earlier output can be written again.

    Returns:
        The counts the relay goes on from, and whether the earlier output must be written first.

    Raises:
        RestoreFailed: The earlier output is gone from the file and was not kept.
    """
    now, was = identity(fd), record.outer
    fresh = {"start_bytes": now.get("start_bytes", 0), "delivered_bytes": 0}
    if not _goes_on_in(was, now):
        return fresh, False
    end_bytes = was.start_bytes + was.delivered_bytes
    if os.fstat(fd).st_size >= end_bytes:
        # What is behind was written after the dump, and will be written again.
        os.ftruncate(fd, end_bytes)
        os.lseek(fd, end_bytes, os.SEEK_SET)
        return {"start_bytes": was.start_bytes, "delivered_bytes": was.delivered_bytes}, False
    if not captured:
        raise _emptied(was, str(now["path"]))
    return {**fresh, "delivered_bytes": was.delivered_bytes}, True


def _goes_on_in(was: OuterRecord, now: Mapping[str, Any]) -> bool:
    """Whether a file that was written to is the one that is written to now, from a position."""
    return (
        was.kind == now["kind"] == "file"
        and not was.appends
        and not now["appends"]
        and was.delivered_bytes > 0
        and (was.path == now["path"] or (was.device, was.inode) == (now["device"], now["inode"]))
    )


def _emptied(was: OuterRecord, path: str) -> RestoreFailed:
    return RestoreFailed(
        f"{path} was emptied, and the {was.delivered_bytes} bytes that the task wrote to it before"
        " are not kept anywhere else",
        hint="redirect with `>>` instead of `>`, or write to another file and join them",
    )


def place_input(record: StreamRecord, fd: int, unread_bytes: int) -> dict[str, Any]:
    """Decide where a stream's input goes on.

    Args:
        record: The stream as the snapshot has it.
        fd: The outer descriptor now.
        unread_bytes: How much of what was taken from the old one goes with the snapshot.

    Returns:
        What the init is told of it: with ``skip_bytes``, which were taken before, if the input is
        a pipe whose writer begins anew.
    """
    content, now = record.to_json(), identity(fd)
    taken_bytes = record.outer.delivered_bytes
    skips = now["kind"] != "closed" and began_anew(content["outer"], now)
    # The unread part is counted when it is passed on again.
    counted_bytes = max(0, taken_bytes - unread_bytes)
    content["outer"] = content["outer"] | now | {"delivered_bytes": counted_bytes}
    return content | {"skip_bytes": taken_bytes if skips else 0}


def place_streams(
    record: StreamsRecord, outer: Outer, backlog: Backlog, captured: Collection[int]
) -> tuple[list[dict[str, Any]], list[int]]:
    """Connect recorded streams to new outer ends.

    Args:
        record: The streams as the snapshot has them.
        outer: What they are connected to now.
        backlog: What was on its way at the dump.
        captured: The streams whose earlier output can be written again.

    Returns:
        What the init is told of each stream, and the streams whose earlier output must be written
        first.

    Raises:
        RestoreFailed: Earlier output is gone from its file and was not kept.
    """
    told: list[dict[str, Any]] = []
    rewrites: list[int] = []
    for stream in record.streams:
        content = stream.to_json()
        if stream.kind == "pipe" and stream.direction == "out":
            first = stream.fds[0]
            fd = outer.fds[first]
            counts, rewrite = place_output(stream, fd, captured=first in captured)
            content["outer"] = identity(fd) | counts
            if rewrite:
                rewrites.append(first)
        elif stream.kind == "pipe":
            unread_bytes = len(backlog.inputs.get(0, b""))
            content = place_input(stream, outer.fds[0], unread_bytes)
        told.append(content)
    return told, rewrites
