"""Files that are locked as long as somebody lives, and removed by those who find nobody who holds them."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

__all__ = ["is_at", "open_locked"]


def open_locked(path: Path, operation: int = fcntl.LOCK_EX) -> int:
    """Open a file, made if need be, and lock it (flock(2)).

    Somebody may remove it, for a dead one's, between the two: then it is made anew.

    Args:
        path: The file.
        operation: Which lock, and whether to wait for it.

    Returns:
        A descriptor of the file that is at the path.

    Raises:
        BlockingIOError: Somebody has it, and we do not wait.
        OSError: It cannot be made or locked.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, operation)
            if is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def is_at(descriptor: int, path: Path) -> bool:
    """Return whether an open file is the one that is at a path."""
    try:
        there, ours = path.stat(), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
