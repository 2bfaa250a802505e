"""The ends of a stream: one descriptor each, read and written without ever blocking the init.

The caller's open file descriptions are shared with other programs, so O_NONBLOCK is never set on
them: pipes and terminals are opened anew through /proc/self/fd, sockets are used with MSG_DONTWAIT,
regular files do not block.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import stat

__all__ = ["End", "kind_of", "open_end"]

#: The pty multiplexer (Documentation/admin-guide/devices.txt): opening it again makes a new
#: terminal.
_PTMX = os.makedev(5, 2)

#: As much as an unprivileged process may ask for (proc_sys_fs(5), pipe-max-size).
_PIPE_BYTES = 1 << 20

#: What a write means when nobody will ever read it again.
GONE = frozenset({errno.EPIPE, errno.ECONNRESET, errno.EIO, errno.ENXIO, errno.ENOTCONN})


def kind_of(fd: int) -> str:
    """Return what a descriptor is: file, pipe, socket, terminal, or device for anything else; closed if it is none."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return "closed"
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISFIFO(mode):
        return "pipe"
    if stat.S_ISSOCK(mode):
        return "socket"
    if stat.S_ISCHR(mode) and os.isatty(fd):
        return "terminal"
    return "device"


class End:
    """One end of a flow; owns its descriptor.

    Args:
        fd: The descriptor.
        kind: As `kind_of` names it.
    """

    def __init__(self, fd: int, kind: str) -> None:
        self.fd = fd
        self.kind = kind
        self.appends = False
        self._poll: select.poll | None = None
        self._socket: socket.socket | None = None
        if kind == "socket":
            self._socket = socket.socket(fileno=fd)

    def read(self, limit_bytes: int) -> bytes | None:
        """Return what is there, b"" at the end of the stream, None when there is nothing yet."""
        try:
            if self._socket is not None:
                return self._socket.recv(limit_bytes, socket.MSG_DONTWAIT)
            return os.read(self.fd, limit_bytes)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in GONE:
                return b""
            raise

    def write(self, data: bytes | memoryview) -> int:
        """Write what fits now.

        Returns:
            How many bytes; 0 when there is no room.

        Raises:
            OSError: With an errno of `GONE` when nobody reads any more.
        """
        try:
            if self._socket is not None:
                return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            return os.write(self.fd, data)
        except BlockingIOError:
            return 0

    def has_input(self) -> bool:
        """Whether a read would not wait now, also because the stream has ended."""
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self.fd, select.POLLIN)
        return bool(self._poll.poll(0))

    def enlarge(self) -> None:
        """Let a pipe hold more, so that fast writers wake us less often."""
        # Refused beyond fs.pipe-user-pages-soft, which does not matter.
        with contextlib.suppress(OSError):
            if fcntl.fcntl(self.fd, fcntl.F_GETPIPE_SZ) < _PIPE_BYTES:
                fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def close(self) -> None:
        """Close the descriptor; once only."""
        if self.fd < 0:
            return
        if self._socket is not None:
            self._socket.close()
        else:
            os.close(self.fd)
        self.fd = -1


def open_end(fd: int, *, writing: bool) -> End | None:
    """Make an end of a descriptor that the init was given, which stays open.

    Args:
        fd: The descriptor.
        writing: Whether the relay will write to it, else read.

    Returns:
        The end; None for a closed descriptor.
    """
    kind = kind_of(fd)
    if kind == "closed":
        return None
    own = -1
    if kind in ("pipe", "terminal") and os.fstat(fd).st_rdev != _PTMX:
        flags = (os.O_WRONLY if writing else os.O_RDONLY) | os.O_NONBLOCK | os.O_NOCTTY
        # Refused for a terminal of another user, or a pipe whose other end has just gone.
        with contextlib.suppress(OSError):
            own = os.open(f"/proc/self/fd/{fd}", flags)
    end = End(own if own >= 0 else os.dup(fd), kind)
    if kind == "pipe":
        end.enlarge()
    end.appends = bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND)
    return end
