"""The files that a snapshot speaks of: what they were when the task was saved, and how they become that again.

CRIU restores a task only where each file has the size that it had.  A file that goes with the snapshot is put back if
it is missing, and cut back to that size if it has only grown; one that has changed is the user's to decide about.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

import attrs

from snaplib.errors import RestoreFailed, UsageError
from snaplib.store import SnapshotReader

__all__ = ["CHANGED_FILES", "TaskFile", "put_back"]

#: What becomes of files that have changed since: the restore is refused, or they are overwritten.
CHANGED_FILES = ("refuse", "overwrite")
#: An object with contents of a file, of this snapshot or borrowed from an earlier one.
_PART = re.compile(r"(\d{8}T\d{6}\.\d{6}-[0-9a-f]{6}/)?file-\d+")
#: How many files one message names.
_MOST_NAMED = 5
_PIECE_BYTES = 1 << 20


@attrs.frozen
class TaskFile:
    """One file.

    Attributes:
        path: Where it is.
        size_bytes: Its size.
        mtime_ns: When it was changed last.
        inode: Its number.
        mode: Its permissions.
        uid: Its owner.
        gid: Its group.
        writable: Whether the task may write to it.
        stream: The snapshot's object with its content; None if it does not go with it, or in parts.
        parts: The objects with its content, one behind the other: borrowed ones, and perhaps one of the snapshot.
    """

    path: str
    size_bytes: int
    mtime_ns: int
    inode: int
    mode: int
    uid: int
    gid: int
    writable: bool
    stream: str | None = None
    parts: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> TaskFile:
        """Return the record of what a manifest says.

        Raises:
            TypeError: It is no such record.
        """
        return cls(**{**fields, "parts": tuple(fields.get("parts", ()))})

    @property
    def contents(self) -> tuple[str, ...]:
        """The objects with its content; none if it does not go with the snapshot."""
        return self.parts if self.stream is None else (self.stream,)


def put_back(reader: SnapshotReader, changed: str = "refuse") -> list[str]:
    """Make the task's files what they were when it was saved.

    Nothing is touched unless all of them can be.

    Args:
        reader: The snapshot.
        changed: ``refuse`` where a file has changed in another way than growing, or ``overwrite`` it.

    Returns:
        What was put back or cut back, by path.

    Raises:
        RestoreFailed: A file has changed, or is missing and did not go with the snapshot; it is named.
        SnapshotDamaged: A file in the snapshot is not what was written.
    """
    if changed not in CHANGED_FILES:
        raise UsageError(f"{changed!r} is not one of {', '.join(CHANGED_FILES)}")
    listed: Mapping[str, Any] = reader.snapshot.extra.get("files") or {}
    files = [_checked(fields) for fields in listed.get("files", ())]
    if listed.get("mode") == "capture":
        # Where it is not, this is a restore on the same machine, and CRIU says what it misses.
        _refuse_missing([file for file in files if not file.contents])
    work: list[tuple[TaskFile, IO[bytes]]] = []
    with contextlib.ExitStack() as stack:
        for file in files:
            if not file.contents:
                continue
            status = _status(file.path)
            if status is not None and _same(file, status):
                continue
            content = stack.enter_context(reader.open_stream(*file.contents))
            if (
                changed == "refuse"
                and status is not None
                and not _only_grown(file, status, content)
            ):
                raise RestoreFailed(
                    f"{file.path} has changed since the task was saved",
                    hint="move it away, or restore with --changed-files overwrite",
                )
            work.append((file, content))
        for file, content in work:
            _write_back(file, content)
    return [file.path for file, _content in work]


def _refuse_missing(files: Iterable[TaskFile]) -> None:
    """Name the programs, libraries and other files that are not what they were where the task was."""
    problems = []
    for file in files:
        status = _status(file.path)
        if status is None:
            problems.append(f"{file.path} is not here")
        elif status.st_size != file.size_bytes:
            problems.append(f"{file.path} has {status.st_size} bytes instead of {file.size_bytes}")
    if problems:
        more = f" (and {len(problems) - _MOST_NAMED} more)" if len(problems) > _MOST_NAMED else ""
        raise RestoreFailed(
            f"the task needs files that did not go with the snapshot: {'; '.join(problems[:_MOST_NAMED])}{more}",
            hint="make them available here under the same paths, in the same versions",
        )


def _checked(fields: Mapping[str, Any]) -> TaskFile:
    try:
        file = TaskFile.from_json(fields)
        path = PurePosixPath(file.path)
    except TypeError as error:
        raise RestoreFailed(f"the snapshot describes its files wrongly: {error}") from error
    if not path.is_absolute() or ".." in path.parts or "\0" in file.path:
        raise RestoreFailed(f"the snapshot has a file of which the path cannot be: {file.path!r}")
    for name in file.contents:
        if not _PART.fullmatch(str(name)):
            raise RestoreFailed(f"the snapshot has no file {name!r}")
    return file


def _status(path: str) -> os.stat_result | None:
    try:
        status = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RestoreFailed(f"{path} cannot be looked at: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise RestoreFailed(f"{path} was a file when the task was saved, and is none now")
    return status


def _same(file: TaskFile, status: os.stat_result) -> bool:
    return status.st_size == file.size_bytes and status.st_mtime_ns == file.mtime_ns


def _only_grown(file: TaskFile, status: os.stat_result, content: IO[bytes]) -> bool:
    """Whether one of both begins with the other: nothing is lost then.  A shell's ``>`` leaves nothing at all."""
    left = min(status.st_size, file.size_bytes)
    with Path(file.path).open("rb") as now:
        content.seek(0)
        while left > 0:
            piece = content.read(min(left, _PIECE_BYTES))
            if not piece or now.read(len(piece)) != piece:
                return False
            left -= len(piece)
    return True


def _pieces(content: IO[bytes]) -> Iterator[bytes]:
    while piece := content.read(_PIECE_BYTES):
        yield piece


def _write_back(file: TaskFile, content: IO[bytes]) -> None:
    path = Path(file.path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        with os.fdopen(descriptor, "r+b") as target:
            content.seek(0)
            for piece in _pieces(content):
                target.write(piece)
            target.truncate(file.size_bytes)
            target.flush()
            os.fchmod(descriptor, file.mode)
            with contextlib.suppress(PermissionError):
                os.fchown(descriptor, file.uid, file.gid)
            os.utime(descriptor, ns=(file.mtime_ns, file.mtime_ns))
    except OSError as error:
        room = " (no room left)" if error.errno == errno.ENOSPC else ""
        raise RestoreFailed(f"{path} cannot be put back: {error.strerror}{room}") from error
