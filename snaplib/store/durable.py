"""Files and folders that are private, durable and locked, and what their errors mean to a user."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING

from snaplib.errors import StoreDenied, StoreError, StoreFull, StoreReadOnly

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from snaplib.store.backend import Data

__all__ = [
    "DIR_MODE",
    "abandoned",
    "create_file",
    "locked",
    "make_dirs",
    "sync_dir",
    "translated",
    "write_all",
]

DIR_MODE = 0o700
_FILE_MODE = 0o600


@contextlib.contextmanager
def translated(path: Path, *, reading: bool = False) -> Iterator[None]:
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
        if error.errno in (errno.EACCES, errno.EPERM):
            raise StoreDenied(
                f"cannot read {path}: {reason}", hint="run it as the store's owner, mostly root"
            ) from error
        verb = "read" if reading else "write"
        raise StoreError(f"cannot {verb} {path}: {reason}") from error


def create_file(path: Path) -> int:
    """Create a file, 0600 and open for reading and writing.

    Raises:
        FileExistsError: There is one.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, _FILE_MODE)
    os.fchmod(fd, _FILE_MODE)
    return fd


def make_dirs(path: Path) -> None:
    """Make a folder and those it is in, each 0700 and durable."""
    if path.is_dir():
        return
    make_dirs(path.parent)
    try:
        path.mkdir(DIR_MODE)
    except FileExistsError:
        if path.is_dir():
            return
        raise
    path.chmod(DIR_MODE)
    sync_dir(path.parent)


def write_all(fd: int, data: Data, offset: int) -> None:
    """Write bytes at an offset."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def sync_dir(path: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of an existing folder."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def abandoned(lock_file: Path) -> bool:
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
