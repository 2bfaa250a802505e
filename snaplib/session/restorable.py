"""What a session is told while a task is restored in it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import IO

from snaplib.session.dumpable import DumpableSession

__all__ = ["RestorableSession"]

_COPY_BYTES = 1 << 20


class RestorableSession(DumpableSession):
    """A session in which a task can be restored; see `SessionHandle`."""

    #: By stream, CRIU's name of the task's end in the snapshot; the new ends have new names.
    _snapshot_keys: Mapping[int, str] = {}
    #: Where earlier output is to be written again, and what.
    _rewrites: Sequence[tuple[int, IO[bytes] | bytes]] = ()

    def inherit_fds(self) -> list[tuple[int, str]]:
        """Return the task's new ends of its streams, each with the key CRIU knows it by.

        They are for CRIU's ``inherit_fd``; the caller closes them once CRIU has them.
        """
        answer, fds = self._control.ask("inherit")
        keys = self._snapshot_keys
        return [(fd, str(keys[first])) for first, fd in zip(answer["streams"], fds, strict=True)]

    def expect_root(self, root_pid: int) -> None:
        """Tell that CRIU is about to let the restored task run.

        Should this process end before `adopt_root`, the task goes on nevertheless, and the session can be found.

        Args:
            root_pid: The root's pid in the session's namespace.
        """
        self._write_again()
        self._control.ask("expect_root", root_pid=root_pid)

    def adopt_root(self, root_pid: int) -> None:
        """Tell that CRIU has restored the task: the streams begin to move, earlier output first.

        Args:
            root_pid: The root's pid in the session's namespace.

        Raises:
            SnaplibError: There is no such process.
        """
        self._write_again()
        self._control.ask("adopt_root", root_pid=root_pid)
        self._root_pid = root_pid

    def _write_again(self) -> None:
        for fd, source in self._rewrites:
            _copy(source, fd)
            os.close(fd)
        self._rewrites = ()

    def close(self) -> None:
        """Let go of the session, which goes on."""
        for fd, _ in self._rewrites:
            os.close(fd)
        self._rewrites = ()
        super().close()


def _copy(source: IO[bytes] | bytes, fd: int) -> None:
    parts = [source] if isinstance(source, bytes) else iter(lambda: source.read(_COPY_BYTES), b"")
    for part in parts:
        left = memoryview(part)
        while left:
            left = left[os.write(fd, left) :]
