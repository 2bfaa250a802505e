"""A session's folder: its record, its control socket, and at the end how it ended.

It appears complete, by one rename, before the task runs; so whoever finds it finds a session that
can be adopted.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Any

__all__ = ["SOCKET", "Folder", "socket_address"]

RECORD = "session.json"
STATUS = "status.json"
SOCKET = "control.sock"
LOG = "init.log"

_LOG_MAX_BYTES = 1 << 20
_STATUS_BYTES = 512
_BACKLOG = 16


@contextlib.contextmanager
def socket_address(folder: Path) -> Any:
    """Give an address for the socket in `folder` that is short enough for any folder (unix(7): 108 bytes)."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET}"
    finally:
        os.close(fd)


class Folder:
    """The folder of one session, as the init writes it.

    Args:
        path: Where it will be.
        unique: What no other session being started has; part of its name until it is complete.
    """

    def __init__(self, path: Path, unique: str) -> None:
        self._final = path
        self._path = path.with_name(f".{path.name}.{unique}")
        self._path.mkdir(mode=0o700)

    def listen(self) -> socket.socket:
        """Make the control socket."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.setblocking(False)
        with socket_address(self._path) as address:
            # Nobody can connect before it is ours alone: the folder is 0700.
            listener.bind(address)
        (self._path / SOCKET).chmod(0o600)
        listener.listen(_BACKLOG)
        return listener

    def publish(self, record: dict[str, Any]) -> None:
        """Let the session be found.

        Raises:
            FileExistsError: There is one of that name.
        """
        self._write(RECORD, record)
        # The end must be told even when the disk is full by then: its room is taken now.
        (self._path / f"{STATUS}.new").write_bytes(b" " * _STATUS_BYTES)
        try:
            self._path.rename(self._final)
        except OSError as error:
            raise FileExistsError(str(self._final)) from error
        self._path = self._final

    def end(self, status: dict[str, Any]) -> None:
        """Write how the session ended."""
        draft = self._path / f"{STATUS}.new"
        # Someone may have removed the folder; then nobody wants to know.
        with contextlib.suppress(OSError):
            with draft.open("r+b") as file:
                file.write(json.dumps(status).encode().ljust(_STATUS_BYTES))
            draft.rename(self._path / STATUS)

    def remove(self) -> None:
        """Remove the folder: nothing ran."""
        with contextlib.suppress(OSError):
            for path in self._path.iterdir():
                path.unlink()
            self._path.rmdir()

    def log(self, message: str) -> None:
        """Append to the init's log what nobody is there to be told."""
        # A full disk, or a folder that someone removed, must not end the task.
        with contextlib.suppress(OSError), (self._path / LOG).open("a") as log:
            if log.tell() < _LOG_MAX_BYTES:
                log.write(message + "\n")

    def _write(self, name: str, content: dict[str, Any]) -> None:
        draft = self._path / f"{name}.new"
        with draft.open("w") as file:
            json.dump(content, file)
        draft.rename(self._path / name)
