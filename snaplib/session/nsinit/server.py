"""The control socket: one JSON object a line, one answer a line, descriptors by SCM_RIGHTS."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Connection", "Server"]

_READ_BYTES = 1 << 16
_LINE_MAX_BYTES = 1 << 20
_FDS_MAX = 16

#: struct ucred of unix(7): pid, uid, gid.
_CREDENTIALS = struct.Struct("iII")

Handler = Callable[["Connection", dict[str, Any], list[int]], None]


class Connection:
    """One client."""

    def __init__(self, channel: socket.socket, *, is_owner: bool = False) -> None:
        channel.setblocking(False)
        self.channel = channel
        #: It started the session or adopted it: its end means that nobody looks after the session
        #: any more.
        self.is_owner = is_owner
        self._buffer = b""
        self._fds: list[int] = []

    def receive(self) -> list[tuple[dict[str, Any], list[int]]] | None:
        """Return the requests that are complete, each with its descriptors; None when the client has gone."""
        try:
            data, fds, _, _ = socket.recv_fds(self.channel, _READ_BYTES, _FDS_MAX)
        except BlockingIOError:
            return []
        except OSError:
            return None
        self._fds += fds
        self._buffer += data
        if not data or len(self._buffer) > _LINE_MAX_BYTES:
            return None
        requests = []
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            request = json.loads(line)
            taken, self._fds = (
                self._fds[: request.get("fds", 0)],
                self._fds[request.get("fds", 0) :],
            )
            requests.append((request, taken))
        return requests

    def answer(self, content: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send an answer; a client that does not take it is not waited for."""
        message = json.dumps(content | {"fds": len(fds)}).encode() + b"\n"
        with contextlib.suppress(OSError):
            socket.send_fds(self.channel, [message], list(fds))

    def close(self) -> None:
        """Hang up."""
        for fd in self._fds:
            os.close(fd)
        self._fds = []
        self.channel.close()


class Server:
    """All clients of one session.

    Args:
        listener: The listening socket.
        handle: Called with each request.
        gone: Called with each client that has gone.
    """

    def __init__(
        self, listener: socket.socket, handle: Handler, gone: Callable[[Connection], None]
    ) -> None:
        self._listener = listener
        self._handle = handle
        self._gone = gone
        self._connections: dict[int, Connection] = {}

    def add(self, connection: Connection) -> None:
        """Serve one more client."""
        self._connections[connection.channel.fileno()] = connection

    def interests(self) -> list[tuple[int, int]]:
        """Return the (descriptor, poll events) to call `serve` for."""
        fds = [self._listener.fileno(), *self._connections]
        return [(fd, select.POLLIN) for fd in fds]

    def serve(self, fd: int) -> None:
        """Do what a client, or a new one, asks for."""
        if fd == self._listener.fileno():
            self._accept()
            return
        connection = self._connections.get(fd)
        if connection is None:
            return
        try:
            requests = connection.receive()
        except (ValueError, AttributeError, TypeError):
            requests = None  # not our protocol
        if requests is None:
            del self._connections[fd]
            connection.close()
            self._gone(connection)
            return
        for request, fds in requests:
            try:
                self._handle(connection, request, fds)
            except (OSError, LookupError, TypeError, ValueError) as error:
                connection.answer({"error": f"{type(error).__name__}: {error}"})
            finally:
                for given in fds:
                    os.close(given)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            channel, _ = self._listener.accept()
            packed = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            _, uid, _ = _CREDENTIALS.unpack(packed)
            if uid not in (0, os.geteuid()):
                channel.close()
                return
            self.add(Connection(channel))
