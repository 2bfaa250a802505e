"""The guardian process (`snaplib.kernel.guardian`) from the side of the one that freezes."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import weakref
from pathlib import Path

from snaplib.errors import DeadlineExceeded

__all__ = ["Guard"]

#: Starting it takes some 20 ms; a machine so loaded that it takes longer than this may not freeze.
_START_DEADLINE_S = 20.0


class Guard:
    """Starts the guardian, which ends when this object is closed or dropped.

    Raises:
        DeadlineExceeded: It did not start in time.
    """

    def __init__(self) -> None:
        script = Path(__file__).with_name("guardian.py")
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(script), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A signal from the terminal to our process group is not meant for it.
            start_new_session=True,
            cwd="/",
            bufsize=0,
        )
        self.close = weakref.finalize(self, _end, self._process)
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], _START_DEADLINE_S)
        if not readable or self._process.stdout.readline() != b"ready\n":
            self.close()
            raise DeadlineExceeded("the guardian that resumes the task did not start in time")

    def tell(self, text: str) -> None:
        """Send one line.

        Raises:
            BrokenPipeError: The guardian has ended.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode() + b"\n")

    @property
    def alive(self) -> bool:
        """Whether the guardian runs."""
        return self._process.poll() is None


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    process.wait()
