"""The task's own terminal: a pty whose slave the task has, and whose master the relay serves.

The outer terminal is in raw mode meanwhile, so that every key reaches the task's terminal as it was
typed and is interpreted there, once: echo, line editing, Ctrl-C.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import termios
from typing import Any

from snaplib.session.nsinit.ends import End

__all__ = ["Terminal", "raw_attributes", "same_attributes", "window_size"]

#: What tcgetattr(3) gives in Python: four flag words, two speeds, the control characters.
Attributes = list[Any]

_LOCAL = 3
_UNREAD_MAX_BYTES = 1 << 16


def raw_attributes(attributes: Attributes) -> Attributes:
    """Return terminal attributes with nothing interpreted on the way, as cfmakeraw(3) makes them."""
    iflag, oflag, cflag, lflag, ispeed, ospeed, control = attributes
    iflag &= ~(
        termios.IGNBRK
        | termios.BRKINT
        | termios.PARMRK
        | termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
    )
    oflag &= ~termios.OPOST
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    cflag = (cflag & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
    control = list(control)
    control[termios.VMIN] = 1
    control[termios.VTIME] = 0
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, control]


def same_attributes(first: Attributes, second: Attributes) -> bool:
    """Whether two terminals behave the same; the control characters are not looked at."""
    return first[: _LOCAL + 1] == second[: _LOCAL + 1]


def window_size(fd: int) -> tuple[int, int] | None:
    """Return (rows, columns) of a terminal; None where there are none."""
    try:
        packed = fcntl.ioctl(fd, termios.TIOCGWINSZ, b"\0" * 8)
    except OSError:
        return None
    rows, columns, _, _ = struct.unpack("HHHH", packed)
    return rows, columns


class Terminal:
    """A pty pair; the master does not block.

    Opened inside the session's mount namespace: CRIU looks its mount up there.
    """

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        os.set_blocking(self.master, False)
        found = os.fstat(self.slave)
        #: CRIU's name of it (CRIU: criu/tty.c, "tty[%x:%x]").
        self.key = f"tty[{found.st_rdev:x}:{found.st_dev:x}]"

    def end(self) -> End:
        """Return an end of the master for a flow."""
        return End(os.dup(self.master), "terminal")

    def resemble(self, outer: int) -> None:
        """Take over the modes and the size of the outer terminal."""
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self.slave, termios.TCSANOW, termios.tcgetattr(outer))
        self.resize(outer)

    def resize(self, outer: int) -> None:
        """Take over the outer terminal's size; the kernel tells the task with SIGWINCH if it changed."""
        size = window_size(outer)
        if size is not None:
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))

    def unread(self) -> bytes:
        """Return what was typed and not yet read by the task, which is stopped; it stays there.

        Line by line input is kept by the kernel as a line being edited, which no ioctl shows: the
        terminal is made raw for a moment, read empty, and fed again with echo off.
        """
        saved = termios.tcgetattr(self.slave)
        silent = [*saved[:_LOCAL], saved[_LOCAL] & ~(termios.ECHO | termios.ECHONL), *saved[4:]]
        reader = os.open(os.ttyname(self.slave), os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        data = b""
        try:
            termios.tcsetattr(self.slave, termios.TCSANOW, raw_attributes(saved))
            with contextlib.suppress(BlockingIOError):
                while len(data) < _UNREAD_MAX_BYTES and (
                    part := os.read(reader, _UNREAD_MAX_BYTES)
                ):
                    data += part
            termios.tcsetattr(self.slave, termios.TCSANOW, silent)
            self.feed(data)
        finally:
            termios.tcsetattr(self.slave, termios.TCSANOW, saved)
            os.close(reader)
        return data

    def feed(self, data: bytes) -> None:
        """Type `data`, as far as there is room."""
        with contextlib.suppress(BlockingIOError):
            while data:
                data = data[os.write(self.master, data) :]

    def close(self) -> None:
        """Hang up."""
        os.close(self.master)
        os.close(self.slave)
