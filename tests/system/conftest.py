"""What whole runs need: a folder, a store and a runtime folder of their own, and nothing left running afterwards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

SNAPLIB = [sys.executable, "-m", "snaplib"]
REPOSITORY = Path(__file__).resolve().parents[2]
WORKLOADS = REPOSITORY / "tests/workloads"


def wait_until(condition: Callable[[], bool], what: str, deadline_s: float = 60.0) -> None:
    """Wait for a condition, and fail with what it was once the deadline has passed."""
    end = time.monotonic() + deadline_s
    pause_s = 0.001
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"waited {deadline_s:g} s for: {what}")
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.05)


class Bench:
    """A folder to run things in.

    Attributes:
        folder: The working directory of what is run.
        env: Its environment: a store and a runtime folder of its own.
        runtime: The runtime folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "work"
        self.folder.mkdir()
        self.runtime = folder / "runtime"
        self.store = folder / "store"
        self._processes: list[subprocess.Popen[bytes]] = []
        self.env = {
            **os.environ,
            "SNAPLIB_RUNTIME_DIR": str(self.runtime),
            "SNAPLIB_STORE": str(self.store),
            "SNAPLIB_SCRATCH_DIR": str(folder),
            "PYTHONPATH": str(REPOSITORY),
        }

    def start(self, arguments: Sequence[str | Path], **options: object) -> subprocess.Popen[bytes]:
        """Start ``snaplib`` with these arguments."""
        return self.start_python(["snaplib", *arguments], **options)

    def start_python(
        self, arguments: Sequence[str | Path], **options: object
    ) -> subprocess.Popen[bytes]:
        """Start the Python module that is named first with the other arguments."""
        merged = {"cwd": self.folder, "env": self.env, "stdin": subprocess.DEVNULL, **options}
        process = subprocess.Popen([sys.executable, "-m", *map(str, arguments)], **merged)  # type: ignore[call-overload]
        self._processes.append(process)
        return process

    def run(self, *arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
        """Run ``snaplib`` with these arguments to its end."""
        merged = {
            "cwd": self.folder,
            "env": self.env,
            "stdin": subprocess.DEVNULL,
            "capture_output": True,
            "text": True,
            "timeout": 100,
            **options,
        }
        return subprocess.run([*SNAPLIB, *map(str, arguments)], check=False, **merged)  # type: ignore[call-overload]

    def sessions(self, *, running: bool = False) -> list[int]:
        """Return the host pids of the sessions' inits that are still there.

        Args:
            running: Only of those whose task has been started or restored.
        """
        found = []
        for path in self.runtime.glob("sessions/*/session.json"):
            try:
                record = json.loads(path.read_text())
                stat = (
                    Path(f"/proc/{record['host_pid']}/stat").read_text().rpartition(")")[2].split()
                )
            except OSError:
                continue  # it ended while we looked
            if running and not record["root_pid"]:
                continue
            if stat[0] != "Z" and int(stat[19]) == record["host_start_ticks"]:
                found.append(record["host_pid"])
        return found

    def wait_for_task(self) -> None:
        """Wait until a task runs, started or restored."""
        wait_until(lambda: bool(self.sessions(running=True)), "the task to run")

    def machine_goes(self, process: subprocess.Popen[bytes]) -> None:
        """End everything at once, and what a reboot does not leave."""
        process.kill()
        for pid in self.sessions():
            os.kill(pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: not self.sessions(), "the machine to be gone")
        shutil.rmtree(self.runtime)

    def tidy(self) -> None:
        """End everything that was started here."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        for pid in self.sessions():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        wait_until(lambda: not self.sessions(), "sessions to end", 10)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Give a folder to run things in, and end what was left running."""
    made = Bench(tmp_path)
    yield made
    made.tidy()
