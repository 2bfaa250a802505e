"""What CRIU's restore says to a lazy-pages daemon over the socket that it expects in the folder of images.

For each process its pid, 32 bits, and then, with one byte, the descriptor of its userfaultfd; a process that has ended
has a negative pid and none.  When all are restored, a word comes in place of a pid (CRIU: criu/uffd.c).
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from pathlib import Path

__all__ = ["RestoreGone", "listen_in", "receive"]

_NAME = "lazy-pages.socket"
_WORD = struct.Struct("=i")
_FINISHED = 0x52535446


class RestoreGone(Exception):
    """The restore has ended before all was restored."""


def listen_in(listener: socket.socket, folder: Path) -> None:
    """Have a socket listen where a restore looks for it.

    Args:
        listener: A stream socket of AF_UNIX.
        folder: The folder of images.
    """
    # Another path of it: those of sockets may have 107 bytes, see unix(7).
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        listener.bind(f"/proc/self/fd/{descriptor}/{_NAME}")
    finally:
        os.close(descriptor)
    listener.listen(1)


def receive(restore: socket.socket) -> tuple[int, int | None] | None:
    """Receive the next process.

    Returns:
        Its pid in the images and its userfaultfd, None where it has ended; None alone when all are restored.

    Raises:
        RestoreGone: The restore has ended.
    """
    (pid,) = _WORD.unpack(_exactly(restore, _WORD.size))
    if pid == _FINISHED:
        return None
    if pid < 0:
        return pid, None
    data, descriptors, _flags, _from = socket.recv_fds(restore, 1, 1)
    if not data or not descriptors:
        raise RestoreGone("the restore did not pass a process's memory on")
    with contextlib.suppress(OSError):
        os.set_inheritable(descriptors[0], False)
    return pid, descriptors[0]


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise RestoreGone("the restore went away")
        data += more
    return data
