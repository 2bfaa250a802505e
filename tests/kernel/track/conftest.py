"""Programs of known behaviour to be tracked, compiled once a session."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from snaplib.task import Task
from snaplib.track import PAGE_BYTES, DirtyScan, WriteProtect

HERE = Path(__file__).parent


class Victim:
    """A running `victim.c`."""

    def __init__(self, program: Path, folder: Path, prefix: tuple[str, ...] = ()) -> None:
        self.process = subprocess.Popen(
            [*prefix, program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=folder,
        )
        self.pid = self.process.pid

    def __call__(self, word: str, *arguments: object) -> int:
        print(word, *arguments, file=self.process.stdin, flush=True)
        verdict, _, result = self.process.stdout.readline().partition(" ")
        if verdict != "ok":
            raise RuntimeError(f"{word} {arguments}: {result.strip() or 'it has ended'}")
        return int(result)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """Compile a C file of this folder and return the program."""
    folder = tmp_path_factory.mktemp("victims")

    def compile_one(name: str, *options: str) -> Path:
        program = folder / name
        if not program.exists():
            if shutil.which("gcc") is None:
                pytest.skip("gcc is not installed")
            command = ["gcc", "-O1", "-pthread", "-o", program, HERE / f"{name}.c", *options]
            subprocess.run(command, check=True)
        return program

    return compile_one


@pytest.fixture
def victim(compiled, tmp_path):
    """A program that does to its memory what it is told."""
    one = Victim(compiled("victim"), tmp_path)
    yield one
    one.end()


@pytest.fixture
def track(require):
    """Return a function that begins to track a process; all is detached after the test."""
    require("write_protect", "pidfd", "ptrace")
    opened = []

    # An emulated machine takes its time.
    slow = {"freeze_deadline_s": 30.0} if os.environ.get("SNAPLIB_GUEST") == "1" else {}

    def begin(pid: int, **options) -> WriteProtect:
        task = Task.attach(pid)
        opened.append(task)
        tracker = WriteProtect(task, **{**slow, **options})
        opened.append(tracker)
        tracker.arm()
        return tracker

    yield begin
    for one in reversed(opened):
        one.close()


@pytest.fixture(scope="session")
def dirty():
    """Return a function that tells which pages of a range a scan says are dirty, from 0."""

    def dirty_pages(scan: DirtyScan, pid: int, address: int, count: int) -> set[int]:
        found: set[int] = set()
        for run in scan.process(pid).dirty:
            first = (int(run["start"]) - address) // PAGE_BYTES
            found.update(range(max(first, 0), min(first + int(run["pages"]), count)))
        return found

    return dirty_pages
