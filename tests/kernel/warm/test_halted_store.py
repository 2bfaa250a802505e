"""A store that takes nothing any more at the moment of notice: the task stands still at once all the same."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import snaplib
from snaplib.checkpoint import Deadline
from snaplib.errors import DeadlineExceeded, StoreUnreachable
from snaplib.store import PageLogOptions, PageLogWriter, Store
from snaplib.store.backend import ObjectWriter
from snaplib.store.bounded import BoundedBackend
from snaplib.supervise import WarmSaver
from snaplib.task import Task
from snaplib.testing.stores import HaltingBackend
from snaplib.warm import FinalCopy, WarmCopy
from tests.savecontext import context_of

pytestmark = pytest.mark.require("all", "write_protect")

#: What the test waits for, and how long on a machine that has much else to do.
PATIENCE_S = 60.0


class Beside:
    """A local store's backend that can come to a halt, and threads for what is kept waiting by it."""

    def __init__(self, folder: Path) -> None:
        self.backend = HaltingBackend(Store.open(str(folder), create=True).backend)
        #: The same, given up in time.
        self.bounded = BoundedBackend(self.backend)
        self._pool = ThreadPoolExecutor(4)
        self.run = self._pool.submit

    def close(self) -> None:
        self.backend.go_on()
        self._pool.shutdown()


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Beside]:
    made = Beside(tmp_path / "far")
    yield made
    made.close()


def stands_still(task: Task) -> bool:
    """Whether CRIU holds it."""
    status = Path(f"/proc/{task.pid}/status").read_text()
    return not re.search(r"^TracerPid:\s*0$", status, re.MULTILINE)


def test_copies_that_are_on_their_way(trees, copying, beside, eventually) -> None:
    """They go on beside the dump; pages that change again meanwhile are taken again."""
    store, backend = Store.over(beside.backend), beside.backend
    task = trees.start(mib=24)
    options = PageLogOptions(codec="zstd", frame_bytes=1 << 18, segment_bytes=1 << 22, workers=1)
    warm = copying(task, store, options=options)
    warm.copy()
    stop, frozen = threading.Event(), threading.Event()

    def progress(stage: str, _bytes: float) -> None:
        if stage == "frozen":
            frozen.set()

    backend.halt()
    copied = beside.run(warm.copy, stop)
    eventually(lambda: backend.waiting > 0, "a copy on its way")
    stop.set()
    copied.result(PATIENCE_S)
    dumped = beside.run(snaplib.dump, task, store, warm=warm, progress=progress)
    assert frozen.wait(PATIENCE_S)
    assert backend.waiting > 0
    backend.go_on()
    snapshot = dumped.result(PATIENCE_S)
    assert "full_because" not in snapshot.extra
    trees.check(store, snapshot.id)


def test_a_snapshot_that_is_called_off(
    trees, beside, eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last bytes are not waited for either; the copies are as good as before."""
    store, backend = Store.over(beside.backend), beside.backend
    task = trees.start(mib=4)
    context = context_of(task, store)
    saver = WarmSaver(context, max_overhead=0.5)
    saver.copy(threading.Event())
    # Another is begun by then.
    first = saver.snapshot(Deadline(PATIENCE_S))
    eventually(saver._warm._coming.done, "the next snapshot to be begun")
    frozen, thawed = threading.Event(), threading.Event()
    freeze, drain = WarmCopy.freeze, PageLogWriter.drain

    def freezes(self: WarmCopy) -> FinalCopy:
        frozen.set()
        return freeze(self)

    def drains(self: PageLogWriter, stopped: Callable[[], bool] | None = None) -> bool:
        if stopped is not None:
            thawed.set()
        return drain(self, stopped)

    monkeypatch.setattr(WarmCopy, "freeze", freezes)
    monkeypatch.setattr(PageLogWriter, "drain", drains)
    backend.halt()
    deadline = Deadline(PATIENCE_S)
    taken = beside.run(saver.snapshot, deadline)
    assert thawed.wait(PATIENCE_S)
    assert backend.waiting > 0
    deadline.call_off()
    with pytest.raises(DeadlineExceeded):
        taken.result(PATIENCE_S)
    assert store.ids() == [first.id]
    frozen.clear()
    saved = beside.run(saver.save, Deadline(PATIENCE_S), ())
    assert frozen.wait(PATIENCE_S)
    assert backend.waiting > 0
    backend.go_on()
    snapshot = saved.result(PATIENCE_S)
    saver.close()
    assert "full_because" not in snapshot.extra
    trees.check(store, snapshot.id)


def hang_at(name: str, backend: HaltingBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a store hang in every way from when an object of a name is made."""
    create, put_new = HaltingBackend.create, HaltingBackend.put_new

    def creates(self: HaltingBackend, called: str, *, bulk: bool = False) -> ObjectWriter:
        if name in called:
            self.halt(wholly=True)
        return create(self, called, bulk=bulk)

    def puts(self: HaltingBackend, called: str, data: bytes) -> None:
        if name in called:
            self.halt(wholly=True)
        put_new(self, called, data)

    monkeypatch.setattr(HaltingBackend, "create", creates)
    monkeypatch.setattr(HaltingBackend, "put_new", puts)


@pytest.mark.parametrize("name", ["index", "manifests"])
def test_a_snapshot_whose_last_puts_hang_at_the_notice(
    trees, beside, eventually, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """They are given up soon, the task is frozen while the store still hangs, and saved once it goes on."""
    store, backend = Store.over(beside.bounded), beside.backend
    task = trees.start(mib=4)
    saver = WarmSaver(context_of(task, store), max_overhead=0.5)
    saver.copy(threading.Event())
    with monkeypatch.context() as patch:
        hang_at(name, backend, patch)
        deadline = Deadline(PATIENCE_S)
        taken = beside.run(saver.snapshot, deadline)
        eventually(lambda: backend.waiting > 0, "the store to hang", deadline_s=PATIENCE_S)
        deadline.call_off()
        with pytest.raises((DeadlineExceeded, StoreUnreachable)):
            taken.result(PATIENCE_S)
    saved = beside.run(saver.save, Deadline(PATIENCE_S), ())
    eventually(lambda: stands_still(task), "the task to stand still", deadline_s=PATIENCE_S)
    assert backend.waiting > 0
    backend.go_on()
    snapshot = saved.result(PATIENCE_S)
    saver.close()
    trees.check(store, snapshot.id)


def test_a_full_dump_is_begun_while_the_task_stands_still(trees, beside, eventually) -> None:
    store, backend = Store.over(beside.bounded), beside.backend
    task = trees.start(mib=4)
    backend.halt(wholly=True)
    dumped = beside.run(snaplib.dump, task, store)
    eventually(lambda: stands_still(task), "the task to stand still", deadline_s=PATIENCE_S)
    assert backend.waiting > 0
    backend.go_on()
    trees.check(store, dumped.result(PATIENCE_S).id)


@pytest.mark.parametrize("copies", [False, True])
def test_a_store_that_never_answers(trees, beside, eventually, copying, copies: bool) -> None:
    """The task stands still, and runs on when the deadline has passed: whoever waits is told."""
    store, backend = Store.over(beside.bounded), beside.backend
    task = trees.start(mib=4)
    warm = copying(task, store) if copies else None
    if warm is not None:
        warm.copy()
    backend.halt(wholly=True)
    deadline = Deadline(PATIENCE_S)
    dumped = beside.run(snaplib.dump, task, store, warm=warm, deadline_s=deadline)
    eventually(lambda: stands_still(task), "the task to stand still", deadline_s=PATIENCE_S)
    deadline.move(0.0)
    with pytest.raises((DeadlineExceeded, StoreUnreachable)):
        dumped.result(PATIENCE_S)
    assert not stands_still(task)
    backend.go_on()
    trees.check(store, snaplib.dump(task, store, warm=warm).id)


def test_a_task_that_is_to_run_on_does_not_wait_for_the_store(trees, beside, eventually) -> None:
    store, backend = Store.over(beside.bounded), beside.backend
    task = trees.start(mib=4)
    backend.halt(wholly=True)
    frozen = threading.Event()

    def progress(stage: str, _bytes: float) -> None:
        if stage == "frozen":
            frozen.set()

    dumped = beside.run(snaplib.dump, task, store, leave_running=True, progress=progress)
    eventually(lambda: backend.waiting > 0, "the store to hang")
    assert not frozen.is_set()
    backend.go_on()
    dumped.result(PATIENCE_S)
    assert frozen.is_set()
