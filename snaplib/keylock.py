"""The lock that says who looks after a key."""

from __future__ import annotations

import contextlib
import fcntl
import os

from snaplib.errors import KeyBusy, UsageError
from snaplib.lockedfile import open_locked
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
            self._descriptor = open_locked(self._path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise KeyBusy(
                f"another snaplib looks after {self._key} already",
                hint="wait for it, or give this run another --key",
            ) from error
        except OSError as error:
            raise UsageError(
                f"the lock {self._path} cannot be made: {error.strerror}",
                hint="make room there, or name another folder in $SNAPLIB_RUNTIME_DIR",
            ) from error

    def __exit__(self, *_exception: object) -> None:
        # While it is locked: whoever waits for it looks whether it is still there.
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self._descriptor)
