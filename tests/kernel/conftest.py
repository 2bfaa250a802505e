"""Real tasks for the tests of this folder; each ends with its test."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snaplib.kernel import ProcFs, TaskCgroup
from snaplib.store import Store
from snaplib.task import Task

WORKLOADS = Path(__file__).parent / "workloads"

Eventually = Callable[[Callable[[], bool], str], None]


class Counter:
    """The workload that counts."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "counts"
        self._file.write_bytes(bytes(4096))
        self.process = subprocess.Popen([sys.executable, WORKLOADS / "counter.py", self._file])
        self.pid = self.process.pid

    def counts(self) -> list[int]:
        content = self._file.read_bytes()
        return [int.from_bytes(content[at : at + 8], "little") for at in range(0, 40, 8)]

    def moves_on_from(self, counts: list[int]) -> bool:
        """Whether everything that counts has counted since."""
        return all(new > old for new, old in zip(self.counts(), counts, strict=True))

    def members(self) -> tuple[int, ...]:
        try:
            return ProcFs().tree(self.pid)
        except ProcessLookupError:
            return ()

    def end(self) -> None:
        # The root goes last: until then no descendant can hide from us.
        while living := [pid for pid in self.members()[1:] if not self._zombie(pid)]:
            for pid in living:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    def _zombie(self, pid: int) -> bool:
        try:
            return ProcFs().stat(pid).zombie
        except ProcessLookupError:
            return True


@pytest.fixture
def eventually() -> Eventually:
    """Wait until a condition holds, and fail with what it is when it does not in time."""

    def wait(condition: Callable[[], bool], what: str, deadline_s: float = 20.0) -> None:
        give_up = time.monotonic() + deadline_s
        while not condition():
            assert time.monotonic() < give_up, f"not within {deadline_s} s: {what}"
            time.sleep(0.002)

    return wait


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store.open(str(tmp_path / "store"), create=True)


@pytest.fixture
def tasks() -> Iterator[list[Task]]:
    """Tasks to end afterwards."""
    made: list[Task] = []
    yield made
    for task in made:
        if task.session is not None:
            task.session.terminate()
            with contextlib.suppress(TimeoutError):
                task.session.wait(30)
            task.session.cleanup()


@pytest.fixture
def sessions_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the sessions of a test apart, and end those it leaves."""
    monkeypatch.setenv("SNAPLIB_RUNTIME_DIR", str(tmp_path / "run"))
    yield
    for path in (tmp_path / "run" / "sessions").glob("*"):
        with contextlib.suppress(OSError):
            os.kill(json.loads((path / "session.json").read_text())["host_pid"], signal.SIGKILL)


@pytest.fixture
def counter(tmp_path: Path, eventually: Eventually) -> Iterator[Counter]:
    """A running task of several processes and threads that count."""
    counter = Counter(tmp_path)
    try:
        eventually(lambda: counter.moves_on_from([0] * 5), "the workload starts")
        yield counter
    finally:
        counter.end()


@pytest.fixture(params=["cgroup-v2", "cgroup-v1", "stop"])
def freezer_kind(
    request: pytest.FixtureRequest,
    counter: Counter,
    require: Callable[..., None],
    eventually: Eventually,
) -> Iterator[str]:
    """The kind of freezer that the counter's task will be frozen with."""
    kind: str = request.param
    require(f"freezer_{kind.replace('-', '_')}")
    if kind == "stop":
        yield kind
        return
    cgroup = TaskCgroup.create(
        f"snaplib-test-{counter.pid}", versions=[2 if kind == "cgroup-v2" else 1]
    )
    assert cgroup is not None
    try:
        while not cgroup.pids() >= set(counter.members()):
            for pid in counter.members():
                with contextlib.suppress(ProcessLookupError):
                    cgroup.add(pid)
        yield kind
    finally:
        counter.end()
        # An orphan that the kernel is about to end may take its time on a loaded machine.
        eventually(cgroup.remove, "the cgroup is empty")
