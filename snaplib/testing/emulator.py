"""A server of somebody else's on loopback, in a process of its own."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

__all__ = ["Emulator"]


class Emulator:
    """A server that listens on a free port of 127.0.0.1 before this returns; a context manager.

    Args:
        command: Returns the program and its arguments for a port.
        start_s: How long it may take to listen.
        failure: What to say when it does not.
        cwd: Where it runs; here by default.
        environment: What is in its environment; ours by default.

    Attributes:
        address: Its base address.

    Raises:
        RuntimeError: It does not listen.
    """

    def __init__(
        self,
        command: Callable[[int], Sequence[str | Path]],
        *,
        start_s: float,
        failure: str,
        cwd: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            command(port),
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + start_s
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError(failure)
            time.sleep(0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server."""
        self._process.kill()
        self._process.wait()
