"""A store that takes nothing any more at the moment of notice: the task stands still at once all the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import snaplib
from snaplib.checkpoint import Deadline
from snaplib.errors import DeadlineExceeded
from snaplib.store import PageLogOptions, PageLogWriter, Store
from snaplib.supervise import SaveContext, WarmSaver
from snaplib.testing.stores import HaltingBackend
from snaplib.warm import FinalCopy, WarmCopy

pytestmark = pytest.mark.require("all", "write_protect")

#: What the test waits for, and how long on a machine that has much else to do.
PATIENCE_S = 60.0


class Beside:
    """A local store's backend that can come to a halt, and threads for what is kept waiting by it."""

    def __init__(self, folder: Path) -> None:
        self.backend = HaltingBackend(Store.open(str(folder), create=True).backend)
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
    context = SaveContext(
        task=task,
        store=store,
        key="key",
        tcp="established",
        window_s=60.0,
        tell=lambda *_, **__: None,
        wake=lambda: None,
    )
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
