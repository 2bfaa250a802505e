"""Hearing at once that something in a folder has changed: inotify(7)."""

from __future__ import annotations

import ctypes
import os
import select

from snaplib.kernel.held import HeldDescriptor
from snaplib.kernel.syscalls import libc_function

__all__ = ["FolderChanges"]

# linux/inotify.h
_IN_CLOSE_WRITE = 0x00000008
_IN_MOVED_FROM = 0x00000040
_IN_MOVED_TO = 0x00000080
_IN_DELETE = 0x00000200
_IN_ONLYDIR = 0x01000000
_CHANGES = _IN_CLOSE_WRITE | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_DELETE | _IN_ONLYDIR

_init = libc_function("inotify_init1", ctypes.c_int)
_add_watch = libc_function("inotify_add_watch", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)


class FolderChanges(HeldDescriptor):
    """Files that are written, moved into, moved out of or deleted from a folder.  Close it, or use it in a ``with``.

    Args:
        path: The folder.

    Raises:
        OSError: There is no such folder, or its user has as many of these as he may.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(_init(os.O_CLOEXEC | os.O_NONBLOCK))
        try:
            _add_watch(self._descriptor, os.fsencode(path), _CHANGES)
        except OSError:
            self.close()
            raise
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def wait(self, seconds: float) -> bool:
        """Wait for a change since the last time.

        Args:
            seconds: For how long at most.

        Returns:
            Whether there was one.
        """
        if not self._poll.poll(seconds * 1000):
            return False
        os.read(self._descriptor, 65536)
        return True
