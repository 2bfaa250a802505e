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
from collections.abc import Sequence
from pathlib import Path

__all__ = ["Guarded", "end_task", "guard"]

_MESSAGE_BYTES = 8192
_END_MS = 10_000
_KEEP, _TASK, _FOLDER, _DONE = b"k", b"t", b"f", b"d"


class Guarded:
    """The serving process's side.

    Args:
        channel: A SOCK_SEQPACKET socket, whose other end is the guard's.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def keep(self, descriptors: Sequence[int]) -> None:
        """Have copies of descriptors held until we say that all is well."""
        self._say(_KEEP, descriptors)

    def task(self, init: int) -> None:
        """Say, by a pidfd, whose PID namespace is to be ended if we die."""
        self._say(_TASK, [init])

    def folder(self, path: Path) -> None:
        """Say what is to be removed if we die."""
        self._say(_FOLDER + os.fsencode(path))

    def done(self) -> None:
        """Say that all is well."""
        self._say(_DONE)

    def _say(self, message: bytes, descriptors: Sequence[int] = ()) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        # A guard that died helps nobody, and harms nobody either.
        with contextlib.suppress(OSError):
            self._channel.sendmsg([message], ancillary if descriptors else [])


def guard(channel: socket.socket) -> int:
    """Hold what the serving process asks for until it says that all is well, or dies.

    Args:
        channel: The other end of what `Guarded` has.

    Returns:
        An exit status.
    """
    held: list[int] = []
    init, folder = -1, ""
    while message := _receive(channel, held):
        kind = message[:1]
        if kind == _DONE:
            return 0
        if kind == _TASK:
            init = held[-1]
        elif kind == _FOLDER:
            folder = os.fsdecode(message[1:])
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


def _receive(channel: socket.socket, held: list[int]) -> bytes:
    message, descriptors, _flags, _from = socket.recv_fds(channel, _MESSAGE_BYTES, 1)
    held += descriptors
    return message
