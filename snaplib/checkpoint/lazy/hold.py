"""A second hand on the task's missing memory.

CRIU gives its daemon one userfaultfd for each process, over a socket.  When the last copy of one is closed, memory that
is missing reads as zeros: if the daemon died, the task would go on with wrong contents.  So the descriptors pass
through here, and copies stay: then the task waits, and can be ended instead.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Hold"]

#: For each process its pid and then, with at least a byte, its descriptor; when all is restored, a word
#: (CRIU: criu/uffd.c).
_HEAD_BYTES = 4
_FINISHED = struct.pack("<I", 0x52535446)
_BYTES = 64


class Hold:
    """Passes on what CRIU's restore says to CRIU's daemon; threads end by themselves.

    Args:
        folder: Where the restore looks for the daemon's socket.
        daemon: The folder in which the daemon's socket is.
        name: The socket's name.
    """

    def __init__(self, folder: Path, daemon: Path, name: str) -> None:
        self._daemon = daemon
        self._name = name
        self._descriptors: list[int] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _short(folder) as place:
            self._listener.bind(f"{place}/{name}")
        self._listener.listen(1)
        threading.Thread(target=self._pass_on, name="snaplib-uffd", daemon=True).start()

    def _pass_on(self) -> None:
        with self._listener:
            restore, _address = self._listener.accept()
        with restore, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as daemon:
            with _short(self._daemon) as place:
                daemon.connect(f"{place}/{self._name}")
            while head := _exactly(restore, _HEAD_BYTES):
                daemon.sendall(head)
                if head != _FINISHED:
                    # Taken by itself: glued to what is before it, it would not be seen by who reads that.
                    data, descriptors, _flags, _from = socket.recv_fds(restore, _BYTES, 1)
                    self._descriptors += descriptors
                    socket.send_fds(daemon, [data], descriptors)

    def release(self) -> None:
        """Let go: the memory is complete, or the task has ended."""
        while self._descriptors:
            os.close(self._descriptors.pop())


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[str]:
    """Give another path of a folder: those of sockets may have 107 bytes, see unix(7)."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _exactly(connection: socket.socket, size: int) -> bytes:
    """Return so many bytes; none where the connection has ended."""
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            return b""
        data += more
    return data
