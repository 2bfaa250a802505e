"""A store with so many bytes a second for all processes together, and a run that uses it.

As a program it is one supervised task: ``python -m tests.benchmarks.throttled STORE RATE SIZE_MIB WINDOW_S READY``;
SIGUSR1 is the notice.
"""

from __future__ import annotations

import fcntl
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from snaplib import Store, Supervisor
from snaplib.errors import SnaplibError
from snaplib.store.address import open_backend

#: How often to look whether a way that is closed is open again.
_LOOK_EVERY_S = 0.02
_TASK = """
import os, sys, time
size = int(sys.argv[1]) << 20
memory = bytearray(os.urandom(size))
open(sys.argv[2], "w").close()
while True:
    time.sleep(0.05)
    memory[:8] = time.monotonic_ns().to_bytes(8, "little")
"""


class Throttled:
    """A backend that takes only so many bytes a second.

    Args:
        folder: A store's folder.
        bytes_per_s: Tells how many, together with whoever else names the same folder; none while it is 0.
    """

    def __init__(self, folder: Path, bytes_per_s: Callable[[], float]) -> None:
        self._backend: Any = open_backend(str(folder))
        self._bytes_per_s = bytes_per_s
        self._clock = folder.with_name("throttle").open("a+b")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def create(self, name: str, *, bulk: bool = False) -> Any:
        """Begin a new object."""
        return _Writer(self, self._backend.create(name, bulk=bulk))

    def spend(self, count: int) -> None:
        """Wait until so many bytes have gone through: whoever comes first goes first."""
        while not (rate := self._bytes_per_s()):
            time.sleep(_LOOK_EVERY_S)
        fcntl.flock(self._clock, fcntl.LOCK_EX)
        try:
            self._clock.seek(0)
            data = self._clock.read(8)
            free_s = struct.unpack("d", data)[0] if data else 0.0
            until_s = max(free_s, time.monotonic()) + count / rate
            self._clock.truncate(0)
            self._clock.write(struct.pack("d", until_s))
            self._clock.flush()
        finally:
            fcntl.flock(self._clock, fcntl.LOCK_UN)
        time.sleep(max(0.0, until_s - time.monotonic()))


class _Writer:
    def __init__(self, owner: Throttled, writer: Any) -> None:
        self._owner = owner
        self._writer = writer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    def append(self, data: Any) -> int:
        self._owner.spend(len(data))
        return self._writer.append(data)


def main() -> int:
    """Supervise one task."""
    folder, rate, size_mib, window_s, ready = sys.argv[1:]
    supervisor = Supervisor(
        [sys.executable, "-I", "-S", "-c", _TASK, size_mib, ready],
        store=Store.over(Throttled(Path(folder), lambda: float(rate)), create=True),
        window_s=float(window_s),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    signal.signal(signal.SIGUSR1, lambda *_: supervisor.notice(source="signal"))
    try:
        return supervisor.run()
    except SnaplibError as error:
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
