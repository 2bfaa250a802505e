"""A store in a local folder.

Folders are 0700 and files 0600 whatever the umask says: a snapshot is a task's memory, passwords
included.  Who writes a snapshot holds a lock on a file in its folder, which ends with the process;
what nobody holds and no manifest names is debris.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from snaplib.errors import StoreError, StoreFull, StoreReadOnly
from snaplib.store.bulk import BLOCK_BYTES, BulkFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from snaplib.store.backend import Data

__all__ = ["LocalBackend"]

_DIR_MODE = 0o700
_FILE_MODE = 0o600

#: The lock file in a folder that is being written.
_HOLD_NAME = ".writer"
#: Folders on their way out; no name of ours begins with a dot.
_DEAD_PREFIX = ".dead-"
_TEMPORARY = "tmp"


class LocalBackend:
    """Keeps objects as files in a folder, which is made when first written to.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def url(self) -> str:
        """The folder's path."""
        return str(self._root)

    def create(self, name: str, *, bulk: bool = False) -> LocalObjectWriter:
        """Begin a new object; its name must be unused."""
        path = self._root / name
        with _translated(path):
            _make_dirs(path.parent)
            return LocalObjectWriter(path, _create_file(path), bulk=bulk)

    def put_new(self, name: str, data: bytes) -> None:
        """Write a small object durably and atomically, if there is none of that name."""
        path = self._root / name
        with _translated(path):
            _make_dirs(path.parent)
            _make_dirs(self._root / _TEMPORARY)
            while not self._put_once(path, data):
                pass

    def _put_once(self, path: Path, data: bytes) -> bool:
        temporary = self._root / _TEMPORARY / secrets.token_hex(8)
        fd = _create_file(temporary)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            _write_all(fd, data, 0)
            os.fsync(fd)
            try:
                # Unlike a rename, a link fails where the name exists.
                os.link(temporary, path)
            except FileNotFoundError:
                # Somebody swept the file away before we had it locked.
                return False
            _sync_dir(path.parent)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            os.close(fd)
        return True

    def open(self, name: str) -> LocalObjectReader:
        """Open an object."""
        path = self._root / name
        with _translated(path, reading=True):
            return LocalObjectReader(path)

    def get(self, name: str) -> bytes:
        """Return the whole of a small object."""
        path = self._root / name
        with _translated(path, reading=True):
            return path.read_bytes()

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names of all objects under a folder, in no particular order."""
        with _translated(self._root / prefix, reading=True):
            for folder, folders, files in os.walk(self._root / prefix):
                folders[:] = [name for name in folders if not name.startswith(".")]
                base = Path(folder).relative_to(self._root)
                for name in files:
                    if not name.startswith("."):
                        yield str(base / name)

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield the names of the folders directly in a folder, in no particular order."""
        path = self._root / prefix
        with _translated(path, reading=True), contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(path):
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                    yield entry.name

    def delete(self, name: str) -> None:
        """Delete an object, if it is there."""
        path = self._root / name
        with _translated(path), contextlib.suppress(FileNotFoundError):
            path.unlink()
            _sync_dir(path.parent)

    def delete_folder(self, prefix: str) -> None:
        """Delete all objects under a folder, if there are any; its name is free at once."""
        path = self._root / prefix
        with _translated(path), contextlib.suppress(FileNotFoundError):
            shutil.rmtree(_rename_dead(path))

    def hold(self, folder: str) -> LocalHold:
        """Make a new folder, marked as being written until released or this process dies."""
        path = self._root / folder
        with _translated(path):
            _make_dirs(path.parent)
            # Nobody may look for abandoned folders between the making of ours and our lock in it.
            with _locked(path.parent):
                path.mkdir(_DIR_MODE)
                path.chmod(_DIR_MODE)
                fd = _create_file(path / _HOLD_NAME)
                fcntl.flock(fd, fcntl.LOCK_EX)
            _sync_dir(path.parent)
        return LocalHold(path / _HOLD_NAME, fd)

    def delete_abandoned(self, prefix: str, keep: Callable[[str], bool]) -> list[str]:
        """Delete the folders that nobody holds, and other leftovers of processes that died."""
        parent = self._root / prefix
        deleted = []
        with _translated(parent), contextlib.suppress(FileNotFoundError):
            with _locked(parent):
                for entry in list(os.scandir(parent)):
                    path = Path(entry.path)
                    if entry.name.startswith(_DEAD_PREFIX) or not _abandoned(path / _HOLD_NAME):
                        continue
                    if keep(entry.name):
                        # Its writer died after the last thing that matters.
                        (path / _HOLD_NAME).unlink(missing_ok=True)
                    else:
                        _rename_dead(path)
                        deleted.append(entry.name)
            # The slow part, outside of the lock.
            for dead in parent.glob(f"{_DEAD_PREFIX}*"):
                shutil.rmtree(dead, ignore_errors=True)
            for temporary in (self._root / _TEMPORARY).glob("*"):
                if _abandoned(temporary):
                    temporary.unlink(missing_ok=True)
        return deleted

    def free_bytes(self) -> int | None:
        """How much more the file system that the folder is or will be in can take from us."""
        path = self._root
        while not path.exists() and path != path.parent:
            path = path.parent
        with _translated(path, reading=True):
            found = os.statvfs(path)
            return found.f_bavail * found.f_frsize


class LocalObjectWriter:
    """A file being written from several threads.

    Args:
        path: Its path.
        fd: A descriptor open for writing, which is ours from now on.
        bulk: Whether to write past the page cache.
    """

    def __init__(self, path: Path, fd: int, *, bulk: bool = False) -> None:
        self._path = path
        self._fd = fd
        self._bulk = BulkFile(fd) if bulk else None
        self._lock = threading.Lock()
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        """How many bytes have been appended."""
        return self._size_bytes

    def append(self, data: Data) -> int:
        """Append bytes and return the offset they are at."""
        with self._lock:
            offset = self._size_bytes
            self._size_bytes += len(data)
            if self._bulk is not None:
                self._size_bytes += -self._size_bytes % BLOCK_BYTES
        with _translated(self._path):
            if self._bulk is not None:
                self._bulk.write(data, offset)
            else:
                _write_all(self._fd, data, offset)
        return offset

    def commit(self) -> None:
        """Make everything appended durable, and close."""
        with _translated(self._path):
            try:
                os.fsync(self._fd)
            finally:
                self._close()
            _sync_dir(self._path.parent)

    def abort(self) -> None:
        """Close and remove the file."""
        self._close()
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class LocalObjectReader:
    """A file open for reading.

    Args:
        path: Its path.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDONLY)
        self._size_bytes = os.fstat(self._fd).st_size

    @property
    def size_bytes(self) -> int:
        """The file's size when it was opened."""
        return self._size_bytes

    def read(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes from ``offset``, fewer only where the file ends before."""
        # No mmap: with it a bad block, or a file cut short meanwhile, is a SIGBUS instead of an
        # error.
        with _translated(self._path, reading=True):
            data = os.pread(self._fd, size, offset)
            if len(data) == size:
                return data
            parts = [data]
            while data and (missing := size - sum(map(len, parts))):
                data = os.pread(self._fd, missing, offset + size - missing)
                parts.append(data)
            return b"".join(parts)

    def close(self) -> None:
        """Close the file; may be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class LocalHold:
    """The lock of a writer on its folder.

    Args:
        path: The lock file.
        fd: A descriptor that holds the lock, ours from now on.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd

    def release(self) -> None:
        """Remove the lock file and the lock; may be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                self._path.unlink()
            os.close(fd)


@contextlib.contextmanager
def _translated(path: Path, *, reading: bool = False) -> Iterator[None]:
    """Turn OSError into what tells a user what is wrong with the store: the one place for it."""
    try:
        yield
    except StoreError:
        raise
    except (FileNotFoundError, FileExistsError):
        # Answers, not failures: they are part of the interface.
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(f"no room left in the store: {path}: {reason}") from error
        if not reading and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise StoreReadOnly(f"the store cannot be written to: {path}: {reason}") from error
        verb = "read" if reading else "write"
        raise StoreError(f"cannot {verb} {path}: {reason}") from error


def _create_file(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, _FILE_MODE)
    os.fchmod(fd, _FILE_MODE)
    return fd


def _make_dirs(path: Path) -> None:
    """Make a folder and those it is in, each 0700 and durable."""
    if path.is_dir():
        return
    _make_dirs(path.parent)
    try:
        path.mkdir(_DIR_MODE)
    except FileExistsError:
        if path.is_dir():
            return
        raise
    path.chmod(_DIR_MODE)
    _sync_dir(path.parent)


def _write_all(fd: int, data: Data, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def _sync_dir(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _rename_dead(path: Path) -> Path:
    """Move a folder to a name that nobody looks at, so that it goes all at once."""
    dead = path.with_name(f"{_DEAD_PREFIX}{secrets.token_hex(8)}")
    path.rename(dead)
    return dead


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _abandoned(lock_file: Path) -> bool:
    """Whether nobody holds a lock file, or there is none."""
    try:
        fd = os.open(lock_file, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True
