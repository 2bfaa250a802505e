"""Whatever goes wrong while a task is copied ahead: it lives, and what is committed is right."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
from pathlib import Path

import pytest

import snaplib
from snaplib.checkpoint.memoryimages import write_images
from snaplib.errors import DeadlineExceeded, StoreError, StoreFull, StoreUnreachable, TaskEnded
from snaplib.store import PageLogOptions, Store
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


def test_the_store_is_out_of_reach_for_a_while(trees, tmp_path, copying) -> None:
    """What it has of the copies is not copied again, and what was on its way is."""
    backend = FailingBackend(
        Store.open(str(tmp_path / "far")).backend, 1 << 30, lambda: StoreUnreachable("made up")
    )
    far = Store.over(backend)
    task = trees.start(mib=24)
    raw = PageLogOptions(codec="none", frame_bytes=1 << 18, segment_bytes=1 << 22)
    warm = copying(task, far, options=raw)
    warm.copy()
    for saved in (warm.copy, lambda: snaplib.dump(task, far, warm=warm)):
        left_bytes = backend.free_bytes()
        backend.spend(left_bytes - 1000)
        with pytest.raises(StoreUnreachable):
            saved()
        assert task.alive()
        assert warm.ready
        backend.give(left_bytes)
        again = warm.copy()
        assert again.copied_pages < again.log_pages
    snapshot = snaplib.dump(task, far, warm=warm)
    assert "full_because" not in snapshot.extra
    trees.check(far, snapshot.id)
    in_folder = {path.name for path in (tmp_path / "far" / "objects" / snapshot.id).iterdir()}
    assert in_folder == set(snapshot.objects)


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
    warm = copying(task, pace=Pace(bytes_per_s=8 << 20))
    killer = threading.Timer(0.5, os.kill, (task.pid, signal.SIGKILL))
    killer.start()

    def copy_on() -> None:
        for _ in range(100):
            warm.copy()

    with pytest.raises(TaskEnded):
        copy_on()
    killer.join()
    assert not warm.ready


def images_of(store: Store, snapshot_id: str, folder: Path) -> dict[str, bytes]:
    """Return what a restore gives CRIU."""
    folder.mkdir()
    try:
        with store.read(snapshot_id) as reader:
            write_images(reader, folder)
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    finally:
        shutil.rmtree(folder)


def test_no_flipped_bit_is_ever_restored(trees, store, copying, tmp_path) -> None:
    """In whatever a chain's last snapshot consists of: its own objects, and segments of those before."""
    task = trees.start(mib=2)
    warm = copying(task)
    for _ in range(3):
        warm.copy()
        last = snaplib.dump(task, store, leave_running=True, warm=warm)
    owners = {segment.owner for segment in last.segments} | {last.id}
    assert len(owners) > 1
    whole = images_of(store, last.id, tmp_path / "images")
    chance = random.Random(23)
    refused = 0
    for path in sorted((tmp_path / "store").rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        if not content or not owners.intersection(path.parts):
            continue
        for _ in range(3):
            damaged = bytearray(content)
            damaged[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            path.chmod(0o600)
            path.write_bytes(damaged)
            try:
                # Not refused where it is of a page that changed since, or of an older snapshot.
                assert images_of(store, last.id, tmp_path / "images") == whole, path
            except StoreError:
                refused += 1
        path.write_bytes(content)
    assert refused > 10
    assert images_of(store, last.id, tmp_path / "images") == whole
