"""The lock that says who looks after a key."""

from __future__ import annotations

import fcntl
import os

from snaplib.errors import KeyBusy, UsageError
from snaplib.runtime import runtime_dir

__all__ = ["KeyLock"]


class KeyLock:
    """Held while a block runs; the kernel frees it when we die.

    Args:
        name: What the lock file is named after.
        key: The key, for the error.

    Raises:
        KeyBusy: On entering: somebody else holds it.
        UsageError: It cannot be made.
    """

    def __init__(self, name: str, key: str) -> None:
        self._path = runtime_dir() / f"{name}.lock"
        self._key = key
        self._descriptor = -1

    def __enter__(self) -> None:
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UsageError(
                f"the lock {self._path} cannot be made: {error.strerror}",
                hint="make room there, or name another folder in $SNAPLIB_RUNTIME_DIR",
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise KeyBusy(
                f"another snaplib looks after {self._key} already",
                hint="wait for it, or give this run another --key",
            ) from error

    def __exit__(self, *_exception: object) -> None:
        os.close(self._descriptor)
