"""Dumps that build upon copies made ahead: every restored page is right, and only changes are taken."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import snaplib
from snaplib.checkpoint import tracked
from snaplib.errors import ShimUnusable
from snaplib.kernel.processmemory import MemoryReader
from snaplib.store import PAGE_BYTES, RunSet, Space
from snaplib.warm import finalcopy, taskpages

pytestmark = pytest.mark.require("all", "write_protect")


def test_a_chain_of_a_tree(trees, store, copying) -> None:
    """Each snapshot of a running tree, and the last, which ends it, is as the memory was."""
    task = trees.start(children=2)
    warm = copying(task)
    taken = []
    for _ in range(3):
        warm.copy()
        warm.copy()
        taken.append(snaplib.dump(task, store, leave_running=True, warm=warm))
    # At once: what changes between two dumps is in the second.
    taken.append(snaplib.dump(task, store, leave_running=True, warm=warm))
    taken.append(snaplib.dump(task, store, warm=warm))

    for snapshot in taken:
        assert "full_because" not in snapshot.extra
        assert snapshot.extra["warm"]["unchanged"] == "left-out"
    assert taken[-1].kind == "incremental"
    assert taken[-1].parent == taken[-2].id
    assert taken[-1].stored_bytes < taken[0].stored_bytes
    trees.check(store, taken[1].id)
    for number in (0, 1):
        store.remove(taken[number].id)
    trees.check(store, taken[4].id)


def test_memory_that_the_kernel_keeps_from_us_is_sent_by_criu(
    trees, store, copying, monkeypatch
) -> None:
    """As where only a tracer reads what a process has made inaccessible: the tree has such pages."""
    monkeypatch.setattr(MemoryReader, "read_anyway", lambda *_: 0)
    monkeypatch.setattr(taskpages, "reads_hidden_memory", lambda: False)
    task = trees.start(children=1)
    warm = copying(task)
    taken = []
    for leave_running in (True, True, False):
        warm.copy()
        taken.append(snaplib.dump(task, store, leave_running=leave_running, warm=warm))

    for snapshot in taken:
        assert "full_because" not in snapshot.extra
    trees.check(store, taken[-1].id)


def test_code_that_criu_changes_for_a_moment_is_saved_as_it_is(
    trees, store, copying, monkeypatch
) -> None:
    """The last copies are made just while CRIU's own system calls are written into the task's code."""
    task = trees.start()
    warm = copying(task)
    warm.copy()
    # This one changes the code and puts it back: so the next has to copy it.
    snaplib.dump(task, store, leave_running=True, warm=warm)
    code = next(one for one in task.procfs.maps(task.pid) if one.perms == "r-xp")
    copy_pages = finalcopy.copy_pages
    before = []

    with Path(f"/proc/{task.pid}/mem").open("rb", buffering=0) as memory:

        def wait_until_it_is_changed(*arguments, **options):
            if before:
                return copy_pages(*arguments, **options)
            before.append(os.pread(memory.fileno(), PAGE_BYTES, code.start))
            give_up = time.monotonic() + 30
            while time.monotonic() < give_up:
                if os.pread(memory.fileno(), PAGE_BYTES, code.start) != before[0]:
                    break
            return copy_pages(*arguments, **options)

        monkeypatch.setattr(finalcopy, "copy_pages", wait_until_it_is_changed)
        snapshot = snaplib.dump(task, store, leave_running=True, warm=warm)

    assert "full_because" not in snapshot.extra
    with store.read(snapshot.id) as reader:
        assert reader.pages.read(Space(1, task.ns_pid), code.start, 1) == before[0]


def test_without_the_preload_library(trees, store, copying, monkeypatch) -> None:
    """What has not changed is thrown away where CRIU cannot leave it out."""

    def unusable(_criu):
        raise ShimUnusable("made up")

    monkeypatch.setattr(tracked, "trusted_shim", unusable)
    task = trees.start(children=1)
    warm = copying(task)
    warm.copy()
    first = snaplib.dump(task, store, leave_running=True, warm=warm)
    warm.copy()
    second = snaplib.dump(task, store, warm=warm)

    for snapshot in (first, second):
        assert snapshot.extra["warm"]["unchanged"] == "thrown-away"
        trees.check(store, snapshot.id)


def test_pages_that_the_log_lost_are_read_at_the_end(trees, store, copying) -> None:
    """Whatever CRIU leaves out and the log does not have is copied while the task stands still."""
    task = trees.start()
    warm = copying(task)
    warm.copy()
    log = warm.writer.pages
    covered = log.covered()
    half = RunSet.of(covered.begins[::2], covered.ends[::2])
    log.forget(half)
    snapshot = snaplib.dump(task, store, warm=warm)

    assert "full_because" not in snapshot.extra
    assert snapshot.extra["warm"]["final_bytes"] >= half.pages // 2 * PAGE_BYTES
    trees.check(store, snapshot.id)


def test_nothing_was_copied_ahead(trees, store, copying) -> None:
    """Copies that have not begun change nothing."""
    task = trees.start()
    snapshot = snaplib.dump(task, store, warm=copying(task))
    assert (snapshot.kind, "warm" in snapshot.extra) == ("full", False)
    trees.check(store, snapshot.id)


def test_the_parent_was_removed(trees, store, copying) -> None:
    """A chain whose last snapshot is gone begins anew."""
    task = trees.start()
    warm = copying(task)
    warm.copy()
    first = snaplib.dump(task, store, leave_running=True, warm=warm)
    store.remove(first.id)
    warm.copy()
    second = snaplib.dump(task, store, warm=warm)

    assert (second.kind, second.parent) == ("full", None)
    trees.check(store, second.id)


def test_a_restored_task_is_found_in_the_store(trees, store, copying) -> None:
    """What it has not changed since its snapshot is not stored again, and outlives that snapshot."""
    warm = copying(trees.start())
    warm.copy()
    first = snaplib.dump(warm.task, store, warm=warm)
    task = trees.restore(store, first.id)
    warm = copying(task)
    warm.copy()
    log = warm.writer.pages
    second = snaplib.dump(task, store, warm=warm)

    # Python's own heap and its libraries' data are several MiB that no change of the program's reaches.
    assert log.found_pages >= 256
    assert (second.kind, second.parent) == ("incremental", first.id)
    store.remove(first.id)
    trees.check(store, second.id)
