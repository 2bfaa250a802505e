"""The regular files that a task has open: what they were when it was saved, and those it writes with their contents.

CRIU restores a task only where each file has the size that it had.  A file that goes with the snapshot is put back if
it is missing, and cut back to that size if it has only grown; one that has changed is the user's to decide about.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

import attrs

from snaplib.errors import RestoreFailed, UsageError
from snaplib.kernel.descriptors import read_descriptors
from snaplib.kernel.maps import parse_maps
from snaplib.store import SnapshotReader, SnapshotWriter

__all__ = ["CHANGED_FILES", "FILE_LIMIT_BYTES", "FILE_MODES", "TaskFile", "keep_files", "put_back"]

#: What goes with a snapshot: the contents of the files that the task writes, or nothing but where they are.
FILE_MODES = ("capture", "reference")
#: What becomes of files that have changed since: the restore is refused, or they are overwritten.
CHANGED_FILES = ("refuse", "overwrite")
#: The task stands still while its files are read, so there is a limit to all of them together.
FILE_LIMIT_BYTES = 4 << 30

_STREAM = "file-{}"
#: How many files one message names.
_MOST_NAMED = 5
_PIECE_BYTES = 1 << 20
_NO_FILES = ("/proc/", "/sys/", "/dev/", "/memfd:")
_DELETED = " (deleted)"


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
        stream: The snapshot's object with its content; None if it does not go with it.
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


def keep_files(
    writer: SnapshotWriter,
    pids: Iterable[int],
    mode: str,
    besides: Collection[str] = (),
    limit_bytes: int = FILE_LIMIT_BYTES,
) -> dict[str, Any]:
    """Note which files a task has open, and store what it writes.

    Args:
        writer: The snapshot's.
        pids: The task's processes, frozen.
        mode: ``capture`` or ``reference``.
        besides: Files that somebody else looks after.
        limit_bytes: Store no more than this; the smallest files come first.

    Returns:
        What goes into the manifest.

    Raises:
        StoreError: A file could not be stored.
    """
    files: list[TaskFile] = []
    left_bytes = limit_bytes
    for link, found in sorted(_open_files(pids), key=lambda pair: pair[1].size_bytes):
        file = found
        wanted = mode == "capture" and file.writable and file.path not in besides
        if wanted and file.size_bytes <= left_bytes:
            left_bytes -= file.size_bytes
            file = attrs.evolve(file, stream=_STREAM.format(len(files)))
            with open(link, "rb") as source:  # noqa: PTH123 - a link into /proc
                assert file.stream is not None
                writer.put_stream(file.stream, _limited(source, file.size_bytes))
        files.append(file)
    return {"mode": mode, "files": [attrs.asdict(file) for file in files]}


def _open_files(pids: Iterable[int]) -> list[tuple[str, TaskFile]]:
    """Each regular file that has a name, once, with a link that opens it."""
    found: dict[tuple[int, int], tuple[str, TaskFile]] = {}
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for target, link, writable in _links(pid):
                if not target.startswith("/") or target.startswith(_NO_FILES):
                    continue
                if target.endswith(_DELETED):
                    continue
                status = os.stat(link)  # noqa: PTH116 - a link into /proc
                if not stat.S_ISREG(status.st_mode):
                    continue
                name = (status.st_dev, status.st_ino)
                file = TaskFile(
                    path=target,
                    size_bytes=status.st_size,
                    mtime_ns=status.st_mtime_ns,
                    inode=status.st_ino,
                    mode=stat.S_IMODE(status.st_mode),
                    uid=status.st_uid,
                    gid=status.st_gid,
                    writable=writable or (name in found and found[name][1].writable),
                )
                found[name] = (link, file)
    return list(found.values())


def _links(pid: int) -> Iterator[tuple[str, str, bool]]:
    """What a process has open or mapped: path, a link that opens it, and whether it may write there."""
    for descriptor in read_descriptors(f"/proc/{pid}"):
        if not descriptor.path_only:
            yield descriptor.target, f"/proc/{pid}/fd/{descriptor.fd}", descriptor.writable
    for mapping in parse_maps(Path(f"/proc/{pid}/maps").read_bytes()):
        if mapping.file_backed and not mapping.deleted:
            link = f"/proc/{pid}/map_files/{mapping.start:x}-{mapping.end:x}"
            yield mapping.path, link, mapping.shared and mapping.writable


def _limited(source: IO[bytes], size: int) -> IO[bytes]:
    return io.BufferedReader(_Limited(source, size), _PIECE_BYTES)


class _Limited(io.RawIOBase):
    """The first so many bytes of a file; a task that is frozen does not write, but others may."""

    def __init__(self, source: IO[bytes], size: int) -> None:
        self._source = source
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, room: Any) -> int:
        data = self._source.read(min(len(room), self._left))
        self._left -= len(data)
        room[: len(data)] = data
        return len(data)


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
        _refuse_missing([file for file in files if file.stream is None])
    work: list[tuple[TaskFile, IO[bytes]]] = []
    with contextlib.ExitStack() as stack:
        for file in files:
            if file.stream is None:
                continue
            status = _status(file.path)
            if status is not None and _same(file, status):
                continue
            content = stack.enter_context(reader.open_stream(file.stream))
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
        file = TaskFile(**fields)
    except TypeError as error:
        raise RestoreFailed(f"the snapshot describes its files wrongly: {error}") from error
    path = PurePosixPath(file.path)
    if not path.is_absolute() or ".." in path.parts or "\0" in file.path:
        raise RestoreFailed(f"the snapshot has a file of which the path cannot be: {file.path!r}")
    if file.stream is not None and ("/" in file.stream or not file.stream.startswith("file-")):
        raise RestoreFailed(f"the snapshot has no file {file.stream!r}")
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
    """Whether what the file was is still at its beginning; a shell's ``>`` leaves it empty, which is as good."""
    if status.st_size == 0:
        return True
    if status.st_size < file.size_bytes:
        return False
    with Path(file.path).open("rb") as now:
        content.seek(0)
        return all(now.read(len(piece)) == piece for piece in _pieces(content))


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
