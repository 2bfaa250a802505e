"""A store in a local folder.

Folders are 0700 and files 0600 whatever the umask says: a snapshot is a task's memory, passwords
included.  Who writes a snapshot holds a lock on a file in its folder, which ends with the process;
what nobody holds and no manifest names is debris.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from snaplib.errors import StoreError
from snaplib.store.durable import (
    DIR_MODE,
    abandoned,
    create_file,
    locked,
    make_dirs,
    sync_dir,
    translated,
    write_all,
)
from snaplib.store.local_object import LocalObjectReader, LocalObjectWriter
from snaplib.store.throughput import Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from snaplib.store.throughput import Throughput

__all__ = ["LocalBackend", "LocalHold"]

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
        self._meter = Meter()

    @property
    def url(self) -> str:
        """The folder's path."""
        return str(self._root)

    @property
    def address(self) -> str:
        """The folder's path."""
        return str(self._root)

    @property
    def local(self) -> bool:
        """Whether its bytes are on this machine."""
        return True

    def limit_by(self, left_s: Callable[[], float] | None) -> None:
        """Nothing here waits for an answer."""

    def throughput(self) -> Throughput:
        """Return how fast the disk has been so far."""
        return self._meter.read()

    def create(self, name: str, *, bulk: bool = False) -> LocalObjectWriter:
        """Begin a new object; its name must be unused."""
        path = self._root / name
        with translated(path):
            make_dirs(path.parent)
            return LocalObjectWriter(path, create_file(path), self._meter, bulk=bulk)

    def put_new(self, name: str, data: bytes) -> None:
        """Write a small object durably and atomically, if there is none of that name."""
        path = self._root / name
        with translated(path), self._meter.sending(len(data)):
            make_dirs(path.parent)
            make_dirs(self._root / _TEMPORARY)
            while not self._put_once(path, data):
                pass

    def _put_once(self, path: Path, data: bytes) -> bool:
        temporary = self._root / _TEMPORARY / os.urandom(8).hex()
        fd = create_file(temporary)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            write_all(fd, data, 0)
            os.fsync(fd)
            try:
                # Unlike a rename, a link fails where the name exists.
                os.link(temporary, path)
            except FileNotFoundError:
                # Somebody swept the file away before we had it locked.
                return False
            except PermissionError as error:
                if not os.access(path.parent, os.W_OK):
                    raise
                raise StoreError(
                    f"the file system of {self._root} has no hard links, which a store needs"
                ) from error
            sync_dir(path.parent)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            os.close(fd)
        return True

    def open(self, name: str, *, bulk: bool = False) -> LocalObjectReader:
        """Open an object."""
        path = self._root / name
        with translated(path, reading=True):
            return LocalObjectReader(path, self._meter, bulk=bulk)

    def get(self, name: str) -> bytes:
        """Return the whole of a small object."""
        path = self._root / name
        with translated(path, reading=True):
            return path.read_bytes()

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names of all objects under a folder, in no particular order."""
        with translated(self._root / prefix, reading=True):
            for folder, folders, files in os.walk(self._root / prefix):
                folders[:] = [name for name in folders if not name.startswith(_DEAD_PREFIX)]
                base = Path(folder).relative_to(self._root)
                for name in files:
                    if name != _HOLD_NAME:
                        yield str(base / name)

    def delete(self, name: str) -> None:
        """Delete an object, if it is there."""
        path = self._root / name
        with translated(path), contextlib.suppress(FileNotFoundError):
            path.unlink()
            sync_dir(path.parent)

    def delete_folder(self, prefix: str) -> None:
        """Delete all objects under a folder, if there are any; its name is free at once."""
        path = self._root / prefix
        with translated(path), contextlib.suppress(FileNotFoundError):
            shutil.rmtree(_rename_dead(path))

    def hold(self, folder: str) -> LocalHold:
        """Make a new folder, marked as being written until released or this process dies."""
        path = self._root / folder
        with translated(path):
            make_dirs(path.parent)
            # Nobody may look for abandoned folders between the making of ours and our lock in it.
            with locked(path.parent):
                path.mkdir(DIR_MODE)
                try:
                    path.chmod(DIR_MODE)
                    fd = create_file(path / _HOLD_NAME)
                except OSError:
                    path.rmdir()
                    raise
                fcntl.flock(fd, fcntl.LOCK_EX)
            held = LocalHold(path / _HOLD_NAME, fd)
            sync_dir(path.parent)
        return held

    def delete_abandoned(self, prefix: str, keep: Callable[[str], bool]) -> list[str]:
        """Delete the folders that nobody holds, and other leftovers of processes that died."""
        parent = self._root / prefix
        deleted = []
        with translated(parent), contextlib.suppress(FileNotFoundError):
            with locked(parent):
                for entry in list(os.scandir(parent)):
                    path = Path(entry.path)
                    if entry.name.startswith(_DEAD_PREFIX) or not abandoned(path / _HOLD_NAME):
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
        # There may be some before there is the first snapshot.
        with translated(self._root):
            for temporary in (self._root / _TEMPORARY).glob("*"):
                if abandoned(temporary):
                    temporary.unlink(missing_ok=True)
        return deleted

    def free_bytes(self) -> int | None:
        """How much more the file system that the folder is or will be in can take from us."""
        path = self._root
        while not path.exists() and path != path.parent:
            path = path.parent
        with translated(path, reading=True):
            found = os.statvfs(path)
            return found.f_bavail * found.f_frsize


class LocalHold:
    """The lock of a writer on its folder.

    Args:
        path: The lock file.
        fd: A descriptor that holds the lock, ours from now on.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd

    @property
    def lost(self) -> bool:
        """A lock cannot be lost."""
        return False

    def check(self) -> None:
        """Nor need it be looked at."""

    def release(self) -> None:
        """Remove the lock file and the lock; may be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                self._path.unlink()
            os.close(fd)


def _rename_dead(path: Path) -> Path:
    """Move a folder to a name that nobody looks at, so that it goes all at once."""
    dead = path.with_name(f"{_DEAD_PREFIX}{os.urandom(8).hex()}")
    path.rename(dead)
    return dead
