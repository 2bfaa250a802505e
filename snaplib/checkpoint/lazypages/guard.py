"""A second hand on a task's missing memory.

When the last copy of a userfaultfd is closed, memory that is missing reads as zeros: if the process that serves the
task died, the task would go on with wrong contents.  So its parent holds copies: then the task waits, and is ended
instead.  Only what it needs is imported here: it waits for as long as memory comes.
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import shutil
import signal
import socket
from pathlib import Path

__all__ = ["Guarded", "end_task", "guard"]

_MESSAGE_BYTES = 8192
_END_MS = 10_000
_DONE_S = 10.0
_KEEP, _DROP, _TASK, _NOTE, _FOLDER, _DONE = b"k", b"r", b"t", b"n", b"f", b"d"


class Guarded:
    """The serving process's side.

    Args:
        channel: A SOCK_SEQPACKET socket, whose other end is the guard's.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def keep(self, descriptor: int) -> None:
        """Have a copy of a descriptor held until we say that all is well."""
        self._say(_KEEP + str(descriptor).encode(), descriptor)

    def drop(self, descriptor: int) -> None:
        """Have the copy of a descriptor closed: nothing is missing there."""
        self._say(_DROP + str(descriptor).encode())

    def task(self, init: int, note: Path) -> None:
        """Say who is to be ended if we die.

        Args:
            init: A pidfd of the first process of the task's PID namespace.
            note: The file that says that the task's memory is on its way.
        """
        self._say(_TASK, init)
        self._say(_NOTE + os.fsencode(note))

    def folder(self, path: Path) -> None:
        """Say what is to be removed if we die."""
        self._say(_FOLDER + os.fsencode(path))

    def done(self) -> None:
        """Say that all is well, and wait until nothing is held and the note is gone."""
        self._say(_DONE)
        self._channel.settimeout(_DONE_S)
        with contextlib.suppress(OSError):
            self._channel.recv(1)

    def _say(self, message: bytes, descriptor: int = -1) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        # A guard that died helps nobody, and harms nobody either.
        with contextlib.suppress(OSError):
            self._channel.sendmsg([message], ancillary if descriptor >= 0 else [])


def guard(channel: socket.socket) -> int:
    """Hold what the serving process asks for until it says that all is well, or dies.

    Args:
        channel: The other end of what `Guarded` has.

    Returns:
        An exit status.
    """
    held: dict[bytes, int] = {}
    init, note, folder = -1, "", ""
    while True:
        message, descriptors, _flags, _from = socket.recv_fds(channel, _MESSAGE_BYTES, 1)
        kind, content = message[:1], message[1:]
        if kind == _KEEP:
            held[content] = descriptors[0]
        elif kind == _DROP:
            os.close(held.pop(content))
        elif kind == _TASK:
            init = descriptors[0]
        elif kind == _NOTE:
            note = os.fsdecode(content)
        elif kind == _FOLDER:
            folder = os.fsdecode(content)
        else:
            break
    if kind == _DONE:
        for descriptor in held.values():
            os.close(descriptor)
        # While there is a note and no process, its memory counts as lost.
        if note:
            Path(note).unlink(missing_ok=True)
        return 0
    if init >= 0:
        end_task(init)
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
    return 1


def end_task(init: int) -> None:
    """End a PID namespace, and wait until nothing of it runs.

    Args:
        init: A pidfd of its first process, with which all others end.
    """
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(init, signal.SIGKILL)
    poller = select.poll()
    poller.register(init, select.POLLIN)
    poller.poll(_END_MS)
