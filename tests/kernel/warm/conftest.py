"""Self-checking tasks, and stores for their copies."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snaplib.checkpoint import restore
from snaplib.store import PageLogOptions, Store
from snaplib.task import Task
from snaplib.warm import WarmCopy

TREE = Path(__file__).resolve().parents[2] / "workloads/memory_tree.py"
NOWHERE = {"stdin": "/dev/null", "stdout": "/dev/null", "stderr": "/dev/null"}


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep records of sessions to ourselves."""
    monkeypatch.setenv("SNAPLIB_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("SNAPLIB_SCRATCH_DIR", str(tmp_path))


class Trees:
    """Starts trees of processes that check their memory, and brings them back."""

    def __init__(self, folder: Path, eventually: Callable[..., None]) -> None:
        self._folder = folder
        self._eventually = eventually
        self._tasks: list[Task] = []
        self.finish = folder / "finish"

    def start(self, mib: int = 8, children: int = 0, rest: float = 0.0) -> Task:
        """Start one, and wait until its memory is there; see the program for what it takes."""
        ready = self._folder / f"ready-{len(self._tasks)}"
        words = [sys.executable, TREE, ready, self.finish, mib, children, rest]
        task = Task.launch([str(word) for word in words], **NOWHERE)
        self._tasks.append(task)
        self._eventually(ready.exists, "the memory is there", deadline_s=180)
        return task

    def restore(self, store: Store, snapshot_id: str) -> Task:
        """Bring one back."""
        task = restore(store, snapshot_id, **NOWHERE)
        self._tasks.append(task)
        return task

    def check(self, store: Store, snapshot_id: str) -> None:
        """Restore a snapshot, and let it say whether all pages are right."""
        assert store.verify(snapshot_id).findings == ()
        task = self.restore(store, snapshot_id)
        self.finish.touch()
        status = task.wait(180)
        self.finish.unlink()
        for failure in self._folder.glob("*-failure"):
            raise AssertionError(failure.read_text())
        assert (status.exit_code, status.signal) == (0, None)

    def end(self) -> None:
        """End all of them."""
        for task in self._tasks:
            session = task.session
            assert session is not None
            session.terminate()
            with contextlib.suppress(TimeoutError):
                session.wait(30)
            session.cleanup()
            task.close()


@pytest.fixture
def trees(tmp_path: Path, eventually: Callable[..., None]) -> Iterator[Trees]:
    """Starts self-checking trees; all are ended afterwards."""
    made = Trees(tmp_path, eventually)
    yield made
    made.end()


@pytest.fixture
def copying(store: Store) -> Iterator[Callable[..., WarmCopy]]:
    """Return a function that begins to copy a task ahead; frames and segments are small."""
    made: list[WarmCopy] = []

    def begin(task: Task, into: Store = store, **options) -> WarmCopy:
        small = PageLogOptions(frame_bytes=1 << 18, segment_bytes=1 << 22)
        made.append(WarmCopy(task, into, **{"options": small, **options}))
        return made[-1]

    yield begin
    for one in made:
        one.close()
