"""Tasks to watch; each ends with its test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from snaplib.task import Task

Start = Callable[..., "Workload"]


class Workload:
    """A Python program that does one thing for each line it is sent, and answers with a line."""

    def __init__(self, program: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
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
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        self.task.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    """Return a function that starts a `Workload`."""
    started: list[Workload] = []

    def begin(program: str, *arguments: str) -> Workload:
        started.append(Workload(program, *arguments))
        return started[-1]

    yield begin
    for one in started:
        one.end()
