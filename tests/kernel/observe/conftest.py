"""Tasks to watch; each ends with its test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from snaplib.task import Task


class Workload:
    """A program that says it is ready, does one thing for each line it is sent, and answers with a line."""

    def __init__(self, *command: str, group: bool = False) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0 if group else None,
        )
        self._group = group
        self.pid = self.process.pid
        assert self.answer() == "ready"
        self.task = Task.attach(self.pid)

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def do(self, line: str = "") -> str:
        """Have it do its thing; return its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.answer()

    def end(self) -> None:
        if self._group:
            os.killpg(self.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        self.task.close()


class Starter:
    """Starts workloads, and ends them."""

    def __init__(self) -> None:
        self._started: list[Workload] = []

    def __call__(self, program: str) -> Workload:
        """Start a program in Python."""
        return self.command(sys.executable, "-u", "-c", program)

    def command(self, *command: str, group: bool = False) -> Workload:
        """Start any program, if asked for with all its processes in a group of their own."""
        self._started.append(Workload(*command, group=group))
        return self._started[-1]

    def end(self) -> None:
        for one in self._started:
            one.end()


@pytest.fixture
def start() -> Iterator[Starter]:
    """Start workloads; they end with the test."""
    starter = Starter()
    yield starter
    starter.end()
