"""Tests for kernels unlike the one that develops this: they run in the guests of `python -m tests.guests`.

``SNAPLIB_GUEST=1`` has them run on any machine whose kernel has what they ask for; elsewhere they are not collected.
"""

from __future__ import annotations

import os

import pytest

from snaplib.task import Task
from snaplib.track import SoftDirty
from tests.kernel.track.conftest import compiled, dirty, victim

__all__ = ["compiled", "dirty", "victim"]

if os.environ.get("SNAPLIB_GUEST") != "1":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def track():
    """Return a function that begins to track a process by soft-dirty bits; all is closed after the test."""
    opened = []

    def begin(pid: int, **options) -> SoftDirty:
        task = Task.attach(pid)
        opened.append(task)
        # An emulated machine takes its time.
        tracker = SoftDirty(task, freeze_deadline_s=30.0, **options)
        opened.append(tracker)
        tracker.arm()
        return tracker

    yield begin
    for one in reversed(opened):
        one.close()
