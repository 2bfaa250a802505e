"""What `snaplib run` copies ahead and saves by."""

from __future__ import annotations

import threading

import pytest

from snaplib.checkpoint import Deadline
from snaplib.supervise import WarmSaver
from tests.savecontext import context_of

pytestmark = pytest.mark.require("all", "write_protect")


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_no_more_bytes_than_may_be_copied(trees, store) -> None:
    """Whatever the window needs; the last round is not bounded."""
    task = trees.start(mib=4)
    clock = Clock()
    saver = WarmSaver(
        context_of(task, store),
        max_overhead=0.5,
        max_bytes_per_s=1e9,
        clock=clock,
        cpu_clock=lambda: 0.0,
    )
    copied = saver.copy(threading.Event())
    assert (
        copied["reason"] == "so that a notice finds most of the work done, within 50 % of one CPU"
    )
    # By a clock that stands still nothing of it has had its time.
    assert saver._pace.owed_s() == pytest.approx(copied["copied_bytes"] / 1e9, rel=0.5)
    saver.hint()
    assert "stands still for less" in saver.copy(threading.Event())["reason"]
    saver.save(Deadline(60), ())
    saver.close()


def test_copies_snapshots_and_the_last_step(trees, store) -> None:
    """Rounds when they are due, snapshots of the running task when those are, and then the end."""
    task = trees.start(children=1)
    clock = Clock()
    context = context_of(task, store)
    saver = WarmSaver(context, max_overhead=0.5, clock=clock, cpu_clock=lambda: 0.0)
    assert saver.next_copy_s() == 5.0
    clock.now += 5
    assert saver.next_copy_s() == 0.0
    first = saver.copy(threading.Event())
    assert first["first"]
    assert first["left_bytes"] == 0
    assert saver.next_copy_s() >= 10
    taken = []
    for _ in range(2):
        clock.now += 30
        assert not saver.copy(threading.Event())["first"]
        taken.append(saver.snapshot(Deadline(60)))
    saver.hint()
    assert saver.next_copy_s() == 0.0
    snapshot = saver.save(Deadline(60), ())
    saver.close()

    # Without a parent where so much has changed that nothing of it is left.
    assert snapshot.parent in (None, taken[-1].id)
    assert "full_because" not in snapshot.extra
    assert snapshot.extra["warm"]["final_bytes"] < snapshot.raw_bytes
    for snapshot_id in store.ids("key")[1:]:
        store.remove(snapshot_id)
    trees.check(store, snapshot.id)
