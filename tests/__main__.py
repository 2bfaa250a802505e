"""Run all tests: those of the kernel, of whole runs, and the rest, each in a pytest of its own, all at once.

The first two wait most of their time: for processes, deadlines and disks. What they print is shown one after the
other, and a line at the end says how each ended. Any argument goes to one pytest, which then does what that says.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NoReturn

#: What each runs. A new folder of tests is among the rest.
PARTS = {
    "kernel": ["tests/kernel"],
    "system": ["tests/system"],
    "the rest": ["--ignore=tests/kernel", "--ignore=tests/system"],
}

_PYTEST = [sys.executable, "-m", "pytest"]
_LOOK_S = 0.1


class Part:
    """One pytest that runs, and what it has printed.

    Args:
        name: What it is called.
        arguments: What it runs.
        scratch: Where it makes its folder for the files of tests.
    """

    def __init__(self, name: str, arguments: Sequence[str], scratch: Path) -> None:
        self.name = name
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - gone when we end
        short = name.replace(" ", "-")
        cache = f"cache_dir=.pytest_cache/{short}"
        # One that begins closes the folder that all share by default, which tests without root have to enter.
        base = f"--basetemp={scratch / short}"
        color = f"--color={'yes' if sys.stdout.isatty() else 'auto'}"
        self.process = subprocess.Popen(
            [*_PYTEST, "-o", cache, color, base, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self._shown = 0

    def show(self) -> None:
        """Print what it prints, until it has ended."""
        print(f"\n=== {self.name}", flush=True)
        ended = False
        while not ended:
            ended = self.process.poll() is not None
            new = os.pread(self._output.fileno(), 1 << 20, self._shown)
            sys.stdout.buffer.write(new)
            sys.stdout.flush()
            self._shown += len(new)
            if new:
                ended = False
            elif not ended:
                time.sleep(_LOOK_S)

    def verdict(self) -> str:
        """Return how it ended, in the words of its last line."""
        size = os.fstat(self._output.fileno()).st_size
        lines = os.pread(self._output.fileno(), 1024, max(0, size - 1024))
        last = lines.decode(errors="replace").strip().rpartition("\n")[2].strip("= ")
        return f"{self.name}: {last or f'ended with status {self.process.returncode}'}"


def main() -> int:
    """Run all, and return 0 if all have passed."""

    def end(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    parts: list[Part] = []
    scratch = Path(tempfile.mkdtemp(prefix="snaplib-"))
    signal.signal(signal.SIGTERM, end)
    # In the background of a script it is ignored, and they would ignore it as well.
    signal.signal(signal.SIGINT, end)
    try:
        parts += [Part(name, arguments, scratch) for name, arguments in PARTS.items()]
        for part in parts:
            part.show()
    except KeyboardInterrupt:
        # A terminal tells them itself; twice would keep them from cleaning up.
        if not sys.stdin.isatty():
            for part in parts:
                part.process.send_signal(signal.SIGINT)
    finally:
        with contextlib.suppress(KeyboardInterrupt):
            for part in parts:
                part.process.wait()
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"\n=== {'; '.join(part.verdict() for part in parts)}", flush=True)
    return int(any(part.process.returncode for part in parts))


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parents[1])
    if len(sys.argv) > 1:
        os.execv(sys.executable, [*_PYTEST, *sys.argv[1:]])
    sys.exit(main())
