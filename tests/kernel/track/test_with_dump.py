"""Tracking and dumping the same task."""

from __future__ import annotations

import pytest

import snaplib
from snaplib.task import Task
from snaplib.track import WriteProtect

PAGES = 64

pytestmark = pytest.mark.require("all")


def test_a_tracked_task_can_be_dumped_and_is_tracked_on(victim, dirty, tmp_path):
    address = victim("map", "anon", PAGES)
    shared = victim("map", "memfd", PAGES)
    victim("store", address, 0, PAGES)
    victim("store", shared, 0, 20)
    store = snaplib.Store.open(str(tmp_path / "store"), create=True)
    with Task.attach(victim.pid) as task, WriteProtect(task) as tracker:
        tracker.arm()
        tracker.scan()
        victim("store", address, 3, 2)
        snaplib.dump(task, store, leave_running=True)
        victim("store", address, 11, 1)
        victim("store", shared, 7, 1)
        scan = tracker.scan()
        assert dirty(scan, victim.pid, address, PAGES) == {3, 4, 11}
        assert dirty(scan, victim.pid, shared, PAGES) >= {7}
        assert victim("peek", address, 11) != 0
