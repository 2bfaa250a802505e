"""The files that go with a snapshot: those that a task has open, and others that were named.

Of each is noted what it is.  The contents of those that the task may write to are stored, if that is wanted, and those
of files that were named in any case.  Where the snapshot before has the beginning of a file, byte for byte, only what
has come since is stored.
"""

from __future__ import annotations

import contextlib
import glob
import io
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import attrs
import blake3

from snaplib.checkpoint.taskfiles import TaskFile
from snaplib.errors import SnaplibError, StoreUnreachable
from snaplib.kernel.descriptors import read_descriptors
from snaplib.kernel.maps import parse_maps
from snaplib.store import Borrowed, Snapshot, SnapshotWriter, Store

__all__ = ["FILE_LIMIT_BYTES", "FILE_MODES", "FilesBefore", "keep_files"]

#: What goes with a snapshot: the contents of the files that the task writes, or nothing but where they are.
FILE_MODES = ("capture", "reference")
#: The task stands still while its files are read, so there is a limit to all of them together.
FILE_LIMIT_BYTES = 4 << 30

_STREAM = "file-{}"
#: What is smaller is stored anew: that costs less than to look.
_LEAST_BORROWED_BYTES = 64 << 10
#: A file in more parts is stored anew as a whole.
_MOST_PARTS = 64
_PIECE_BYTES = 1 << 20
_NO_FILES = ("/proc/", "/sys/", "/dev/", "/memfd:")
_DELETED = " (deleted)"


@attrs.frozen
class FilesBefore:
    """What an earlier snapshot of the same task has of its files, to be borrowed.

    Attributes:
        files: Its files by their paths.
        parts: What can be borrowed, by `Borrowed.reference`.
        owner: Its id.
    """

    files: Mapping[str, TaskFile] = attrs.field(factory=dict)
    parts: Mapping[str, Borrowed] = attrs.field(factory=dict)
    owner: str = ""

    @classmethod
    def claimed(cls, store: Store, writer: SnapshotWriter) -> FilesBefore:
        """Return what the newest snapshot of the key has, claimed for a new one.

        It saves something and is needed for nothing: where it cannot be had there is nothing to borrow.

        Args:
            store: Where both are.
            writer: The new snapshot's.

        Raises:
            StoreUnreachable: The store does not answer.
        """
        try:
            snapshot = store.latest(writer.key)
            listed = _listed(snapshot) if snapshot else {}
            if snapshot is None or not any(file.contents for file in listed.values()):
                return cls()
            claimed = writer.claim_objects(snapshot, lambda name: name.startswith("file-"))
        except StoreUnreachable:
            raise
        except (SnaplibError, TypeError, KeyError):
            return cls()
        return cls(listed, {one.reference: one for one in claimed}, snapshot.id)

    def parts_of(self, file: TaskFile) -> tuple[Borrowed, ...]:
        """Return what may be the beginning of a file; it is for the caller to look."""
        before = self.files.get(file.path)
        if before is None or before.size_bytes > file.size_bytes:
            return ()
        if before.size_bytes < _LEAST_BORROWED_BYTES or len(before.contents) >= _MOST_PARTS:
            return ()
        names = (name if "/" in name else f"{self.owner}/{name}" for name in before.contents)
        parts = tuple(self.parts[name] for name in names if name in self.parts)
        return parts if sum(one.size_bytes for one in parts) == before.size_bytes else ()


def _listed(snapshot: Snapshot) -> dict[str, TaskFile]:
    files = (snapshot.extra.get("files") or {}).get("files", ())
    return {one["path"]: TaskFile.from_json(one) for one in files}


def keep_files(
    writer: SnapshotWriter,
    pids: Iterable[int],
    mode: str,
    besides: Collection[str] = (),
    limit_bytes: int = FILE_LIMIT_BYTES,
    *,
    named: Iterable[str] = (),
    before: FilesBefore | None = None,
) -> dict[str, Any]:
    """Note which files a task has open, and store what it writes and what was named.

    Args:
        writer: The snapshot's.
        pids: The task's processes, frozen.
        mode: ``capture`` or ``reference``.
        besides: Files that somebody else looks after.
        limit_bytes: Store no more than this; the smallest files come first.
        named: Patterns, absolute, of files whose contents are stored too, whatever the mode; ``**`` is any folders.
        before: What an earlier snapshot has of them.

    Returns:
        What goes into the manifest.

    Raises:
        StoreError: A file could not be stored.
    """
    before = before or FilesBefore()
    opened = _open_files(pids)
    wanted = _named_files(named)
    files: list[TaskFile] = []
    left_bytes = limit_bytes
    everything = {**wanted, **opened}.items()
    for name, (link, found) in sorted(everything, key=lambda one: one[1][1].size_bytes):
        file = found
        is_written = mode == "capture" and file.writable and file.path not in besides
        if (is_written or name in wanted) and file.size_bytes <= left_bytes:
            left_bytes -= file.size_bytes
            try:
                source = open(link, "rb")  # noqa: PTH123, SIM115 - may be a link into /proc
            except FileNotFoundError:
                # One that was named, and that somebody else has just deleted.
                continue
            with source:
                file = _stored(writer, file, source, _STREAM.format(len(files)), before)
        files.append(file)
    return {"mode": mode, "files": [attrs.asdict(file) for file in files]}


def _stored(
    writer: SnapshotWriter, file: TaskFile, source: IO[bytes], name: str, before: FilesBefore
) -> TaskFile:
    """Store the contents of a file, or what there is not of them in an earlier snapshot."""
    parts = before.parts_of(file)
    if not parts or not all(_is_next(part, source) for part in parts):
        source.seek(0)
        writer.put_stream(name, _limited(source, file.size_bytes))
        return attrs.evolve(file, stream=name)
    contents = [part.reference for part in parts]
    for reference in contents:
        writer.borrow(reference)
    left_bytes = file.size_bytes - source.tell()
    if left_bytes:
        writer.put_stream(name, _limited(source, left_bytes))
        contents.append(name)
    return attrs.evolve(file, parts=tuple(contents))


def _is_next(part: Borrowed, source: IO[bytes]) -> bool:
    """Whether a file goes on with an object that was stored once.

    To read it takes a fraction of what it takes to store it, and nothing else tells that a file has only grown.
    """
    found = blake3.blake3()
    left_bytes = part.size_bytes
    while left_bytes and (piece := source.read(min(left_bytes, _PIECE_BYTES))):
        found.update(piece)
        left_bytes -= len(piece)
    return not left_bytes and found.hexdigest() == part.blake3


def _named_files(patterns: Iterable[str]) -> dict[tuple[int, int], tuple[str, TaskFile]]:
    """Return the regular files that patterns name, each once, with its path."""
    found = {}
    for pattern in patterns:
        # Not pathlib's: its patterns cannot be absolute.
        for path in glob.iglob(pattern, recursive=True, include_hidden=True):  # noqa: PTH207
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode):
                    file = _described(path, status, writable=False)
                    found[status.st_dev, status.st_ino] = (path, file)
    return found


def _described(path: str, status: os.stat_result, *, writable: bool) -> TaskFile:
    return TaskFile(
        path=path,
        size_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
        inode=status.st_ino,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        writable=writable,
    )


def _open_files(pids: Iterable[int]) -> dict[tuple[int, int], tuple[str, TaskFile]]:
    """Each regular file that is open and has a name, once, with a link that opens it."""
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
                was_writable = name in found and found[name][1].writable
                file = _described(target, status, writable=writable or was_writable)
                found[name] = (link, file)
    return found


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
