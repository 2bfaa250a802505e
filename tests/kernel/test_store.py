"""A store in a file system that is full, or read-only."""

from __future__ import annotations

import os
import subprocess

import pytest

from snaplib.errors import NotAStore, StoreFull, StoreReadOnly
from snaplib.store import PageLogOptions, Store
from snaplib.testing.snapshots import NOISE, SAMPLE_TASK, feed, sample_snapshot

pytestmark = pytest.mark.require("root")


@pytest.fixture
def small(tmp_path):
    """A file system of 4 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("codec", ["auto", "none"])
def test_full(small, codec):
    """A disk that gets full is told, in one line, and nothing of the snapshot stays on it."""
    store = Store.open(str(small / "store"), create=True)
    kept = sample_snapshot(store)
    free = store.free_bytes()

    def take():
        with store.begin("key", PageLogOptions(codec=codec)) as writer:
            for number in range(100):
                writer.pages.run(SAMPLE_TASK, number << 20, 40, 4)
                # New each time: a frame of repeated noise would compress well.
                feed(writer.pages, os.urandom(len(NOISE)))
            writer.commit()

    with pytest.raises(StoreFull, match="no room left") as caught:
        take()

    assert "\n" not in str(caught.value)
    assert store.snapshots() == [kept]
    assert store.verify(kept.id).ok
    assert abs(store.free_bytes() - free) <= 8192


def test_full_at_every_size(small):
    """Wherever the room ends, there is a whole snapshot or none."""
    store = Store.open(str(small / "store"), create=True)
    kept = sample_snapshot(store)
    ballast = small / "ballast"
    refused = 0
    for room in range(0, 200_000, 8192):
        with ballast.open("wb") as file:
            file.truncate(0)
            file.write(bytes(max(0, store.free_bytes() - room)))
        try:
            store.remove(sample_snapshot(store).id)
        except StoreFull:
            refused += 1
        assert store.snapshots() == [kept]
        assert [path.name for path in (small / "store" / "objects").iterdir()] == [kept.id]
    assert refused
    assert store.verify(kept.id).ok


def test_read_only(small):
    """A read-only file system can be read from, and refuses writers."""
    store = Store.open(str(small / "store"), create=True)
    kept = sample_snapshot(store)
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)

    again = Store.open(str(small / "store"), create=True)
    assert again.latest("key") == kept
    assert again.verify(kept.id).ok
    with pytest.raises(StoreReadOnly):
        again.begin("key")
    with pytest.raises(StoreReadOnly):
        again.mark_ended("key", 0)
    with pytest.raises(StoreReadOnly):
        again.remove(kept.id)
    with pytest.raises(StoreReadOnly):
        Store.open(str(small / "other"), create=True)
    with pytest.raises(NotAStore):
        Store.open(str(small / "other"), create=False)
