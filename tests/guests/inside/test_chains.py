"""Incremental dumps by the kernel's own soft-dirty bits, and by what is chosen here: every restored page is right."""

from __future__ import annotations

import functools

import pytest

import snaplib
from snaplib.kernel.hidden import reads_hidden_memory
from snaplib.track import Basis, SoftDirty, WriteProtect
from tests.kernel.conftest import eventually, store
from tests.kernel.warm.conftest import copying, runtime, trees

__all__ = ["copying", "eventually", "runtime", "store", "trees"]

TRACKERS = {
    # An emulated machine takes its time.
    "soft-dirty": functools.partial(SoftDirty, freeze_deadline_s=30.0),
    "write-protect": functools.partial(WriteProtect, freeze_deadline_s=30.0),
}

#: Without rest the tree keeps the one CPU of a guest busy, and what copies ahead gives way to it: each round would take
#: minutes.
REST = 4.0

pytestmark = [
    pytest.mark.require("all"),
    pytest.mark.parametrize(
        "by",
        [
            pytest.param("soft-dirty", marks=pytest.mark.require("soft_dirty")),
            pytest.param("write-protect", marks=pytest.mark.require("write_protect")),
        ],
    ),
]


def left_out(snapshot: snaplib.Snapshot, by: str) -> bool:
    """Whether a dump built upon copies: by soft-dirty bits it need not where some memory cannot be read."""
    because = snapshot.extra.get("full_because", "")
    if because:
        assert by == "soft-dirty", because
        assert not reads_hidden_memory(), because
        assert "neither in the copy nor can they be read" in because
    return not because


def test_a_chain_of_a_tree(trees, store, copying, by) -> None:
    task = trees.start(mib=2, children=1, rest=REST)
    warm = copying(task, open_tracker=TRACKERS[by])
    warm.copy()
    taken = [snaplib.dump(task, store, leave_running=True, warm=warm)]
    # At once: what changes between two dumps is in the second.
    taken.append(snaplib.dump(task, store, leave_running=True, warm=warm))
    taken.append(snaplib.dump(task, store, warm=warm))
    if {left_out(snapshot, by) for snapshot in taken} == {True}:
        assert {snapshot.extra["warm"]["unchanged"] for snapshot in taken} == {"left-out"}
        assert taken[-1].kind == "incremental"
        assert taken[-1].stored_bytes < taken[0].stored_bytes
    trees.check(store, taken[1].id)
    trees.check(store, taken[-1].id)


def test_a_dump_that_fails_loses_no_changes(trees, store, copying, by, monkeypatch) -> None:
    """CRIU unmarks pages when it has dumped them, whether or not the snapshot is committed."""
    task = trees.start(mib=2, rest=REST)
    warm = copying(task, open_tracker=TRACKERS[by])
    warm.copy()
    assert warm.basis is Basis(by)

    def refuse(*_, **__):
        raise snaplib.errors.StoreError("made up")

    with monkeypatch.context() as patched:
        patched.setattr("snaplib.store.snapshot.SnapshotWriter.commit", refuse)
        with pytest.raises(snaplib.errors.StoreError, match="made up"):
            snaplib.dump(task, store, leave_running=True, warm=warm)
    warm.copy()
    snapshot = snaplib.dump(task, store, warm=warm)
    left_out(snapshot, by)
    trees.check(store, snapshot.id)
