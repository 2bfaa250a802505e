"""Whatever goes wrong while a task is copied ahead: it lives, and what is committed is right."""

from __future__ import annotations

import os
import signal
import threading

import pytest

import snaplib
from snaplib.errors import DeadlineExceeded, StoreFull, TaskEnded
from snaplib.store import Store
from snaplib.testing.stores import FailingBackend
from snaplib.warm import CopyFailed, FinalCopy, Pace

pytestmark = pytest.mark.require("all", "write_protect")


@pytest.mark.parametrize("step", ["__init__", "finish"])
def test_a_dump_that_cannot_build_upon_copies_takes_everything(
    trees, store, copying, monkeypatch, step
) -> None:
    """It is abandoned, the task runs on, and a full dump follows."""

    def fail(*_, **__):
        raise CopyFailed("made up")

    task = trees.start()
    warm = copying(task)
    warm.copy()
    stages = []
    with monkeypatch.context() as patched:
        patched.setattr(FinalCopy, step, fail)
        snapshot = snaplib.dump(
            task,
            store,
            leave_running=True,
            warm=warm,
            progress=lambda stage, _: stages.append(stage),
        )
    warm.copy()
    again = snaplib.dump(task, store, warm=warm)

    assert "made up" in snapshot.extra["full_because"]
    assert stages[stages.index("full") :] == ["full", "frozen", "dumped", "committed"]
    assert "full_because" not in again.extra
    trees.check(store, snapshot.id)
    trees.check(store, again.id)


def test_the_tracker_loses_its_hold(trees, store, copying) -> None:
    """Without write protection nothing is known, and everything is taken."""
    task = trees.start(children=1)
    warm = copying(task)
    warm.copy()
    for process in warm._tracker._roster.armed.values():
        # What the kernel does when a tracker is killed.
        process._userfaultfd.close()
    snapshot = snaplib.dump(task, store, warm=warm)
    trees.check(store, snapshot.id)


def test_the_store_fills_up_in_a_round(trees, store, tmp_path, copying) -> None:
    """The error comes out, the task lives, and can be saved elsewhere."""
    task = trees.start()
    small = Store.over(FailingBackend(Store.open(str(tmp_path / "small")).backend, 2 << 20))
    warm = copying(task, small)
    with pytest.raises(StoreFull):
        warm.copy()
    assert not warm.ready
    assert task.alive()
    assert list((tmp_path / "small" / "objects").iterdir()) == []
    other = copying(task)
    other.copy()
    snapshot = snaplib.dump(task, store, warm=other)
    trees.check(store, snapshot.id)


def test_the_store_fills_up_in_the_dump(trees, store, tmp_path, copying) -> None:
    """The same in the last step: the task runs on."""
    backend = FailingBackend(Store.open(str(tmp_path / "small")).backend, 1 << 30)
    small = Store.over(backend)
    task = trees.start()
    warm = copying(task, small)
    warm.copy()
    backend.spend(backend.free_bytes() - 1000)
    with pytest.raises(StoreFull):
        snaplib.dump(task, small, warm=warm)
    assert task.alive()
    assert small.ids() == []
    snapshot = snaplib.dump(task, store)
    trees.check(store, snapshot.id)


def test_told_to_stop(trees, store, copying) -> None:
    """A round that is told to stop says what it left, and the dump takes that."""
    task = trees.start()
    stop = threading.Event()

    class StopAtOnce(Pace):
        def pause_s(self, _copied_bytes: int) -> float:
            stop.set()
            return 60.0

    warm = copying(task, pace=StopAtOnce())
    round_ = warm.copy(stop)
    assert round_.left_pages > round_.copied_pages > 0
    snapshot = snaplib.dump(task, store, warm=warm)
    assert "full_because" not in snapshot.extra
    trees.check(store, snapshot.id)


def test_too_late(trees, store, copying, monkeypatch) -> None:
    """A dump that takes too long is given up, and the copies are as good as before."""
    task = trees.start()
    warm = copying(task)
    warm.copy()
    with monkeypatch.context() as patched:
        patched.setattr(FinalCopy, "finish", lambda *_: threading.Event().wait(4))
        with pytest.raises(DeadlineExceeded):
            snaplib.dump(task, store, warm=warm, deadline_s=2)
    assert task.alive()
    assert warm.ready
    snapshot = snaplib.dump(task, store, warm=warm)
    assert "full_because" not in snapshot.extra
    trees.check(store, snapshot.id)


def test_the_task_ends_in_a_round(trees, copying) -> None:
    """A task that is killed meanwhile is gone, which is told."""
    task = trees.start()
    warm = copying(task, pace=Pace(bytes_per_s=1 << 20))
    killer = threading.Timer(0.5, os.kill, (task.pid, signal.SIGKILL))
    killer.start()

    def copy_on() -> None:
        for _ in range(100):
            warm.copy()

    with pytest.raises(TaskEnded):
        copy_on()
    killer.join()
    assert not warm.ready
