"""The client's side of a session's control socket."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from snaplib.errors import SnaplibError, TaskEnded
from snaplib.session.nsinit.folder import socket_address

__all__ = ["Control"]

_READ_BYTES = 1 << 16
_FDS_MAX = 16
_ANSWER_TIMEOUT_S = 30.0


class Control:
    """A connection to a session's init.

    Args:
        channel: A connected stream socket.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._buffer = b""
        self._fds: list[int] = []
        self._lock = threading.Lock()

    @classmethod
    def connect(cls, folder: Path) -> Control:
        """Connect to the session in `folder`.

        Raises:
            TaskEnded: Nobody listens there any more.
        """
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with socket_address(folder) as address:
                channel.connect(address)
        except OSError as error:
            channel.close()
            raise TaskEnded(f"the session {folder.name} has ended") from error
        return cls(channel)

    def ask(
        self,
        request: str,
        *,
        fds: Sequence[int] = (),
        timeout_s: float = _ANSWER_TIMEOUT_S,
        **arguments: Any,
    ) -> tuple[dict[str, Any], list[int]]:
        """Ask for something, and wait for the answer.

        Args:
            request: What to do.
            fds: Descriptors that go with it.
            timeout_s: How long to wait.
            **arguments: The request's own.

        Returns:
            The answer and the descriptors that came with it, which are the caller's to close.

        Raises:
            TaskEnded: The session has ended meanwhile.
            SnaplibError: It was refused.
        """
        message = json.dumps({"do": request, "fds": len(fds), **arguments}).encode() + b"\n"
        with self._lock:
            try:
                self._channel.settimeout(timeout_s)
                sent = socket.send_fds(self._channel, [message], list(fds))
                # Whoever has all of it may have ended by now, and answered before.
                if sent < len(message):
                    self._channel.sendall(message[sent:])
            except OSError as error:
                raise TaskEnded("the session has ended") from error
            return self.receive()

    def receive(self) -> tuple[dict[str, Any], list[int]]:
        """Wait for one answer; see `ask`."""
        while b"\n" not in self._buffer:
            try:
                data, fds, _, _ = socket.recv_fds(self._channel, _READ_BYTES, _FDS_MAX)
            except TimeoutError as error:
                # The answer may still come, and must not be taken for that to another request.
                self._channel.close()
                raise SnaplibError("the session's init does not answer") from error
            except ConnectionError:
                data, fds = b"", []
            self._fds += fds
            if not data:
                raise TaskEnded("the session has ended")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        count = answer.get("fds", 0)
        taken, self._fds = self._fds[:count], self._fds[count:]
        if "error" in answer and "failed" not in answer:
            for fd in taken:
                os.close(fd)
            raise SnaplibError(f"the session refused to {answer['error']}")
        return answer, taken

    def close(self) -> None:
        """Hang up."""
        self._channel.close()
