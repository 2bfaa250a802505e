"""The store: opening, keys and ids, ends, debris, permissions."""

from __future__ import annotations

import datetime as dt
import errno
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaplib.errors import (
    NoSuchSnapshot,
    NotAStore,
    StoreDenied,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreTooNew,
    UsageError,
)
from snaplib.store import Store, names
from snaplib.store.durable import translated
from snaplib.testing.snapshots import NOISE, feed, sample_snapshot
from snaplib.testing.snapshots import SAMPLE_TASK as TASK


def test_a_missing_store_is_not_made(tmp_path):
    """Only writers make a store; a reader's mistake leaves nothing."""
    with pytest.raises(NotAStore, match="is not a snaplib store"):
        Store.open(str(tmp_path / "none"), create=False)

    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    """A folder with other things in it does not become a store."""
    for number, name in enumerate(("thesis.tex", ".bashrc", "src/main.c")):
        folder = tmp_path / str(number)
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("x")
        for create in (False, True):
            with pytest.raises(NotAStore):
                Store.open(str(folder), create=create)

        assert [path for path in folder.rglob("*") if path.is_file()] == [folder / name]


def test_a_file_is_not_a_store(tmp_path):
    """Nor is a path below one."""
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError):
            Store.open(str(path), create=True)


def test_opening_again(tmp_path):
    """A store is found again by path and by URL, and making it twice is making it once."""
    path = tmp_path / "a b%20c"
    first = Store.open(str(path), create=True)
    snapshot = first.begin("key").commit()

    for url in (
        str(path),
        f"file://{tmp_path}/a%20b%2520c",
        f"file://localhost{tmp_path}/a%20b%2520c",
    ):
        assert Store.open(url, create=True).latest("key") == snapshot
    assert first.url == str(path)
    assert first.free_bytes() > 0


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("ftp://host/path", "no store is known"),
        ("file://elsewhere/path", "another machine"),
        ("", "empty"),
        ("file://", "empty"),
    ],
)
def test_addresses(url, match):
    """An address that means nothing says which do."""
    with pytest.raises(UsageError, match=match) as caught:
        Store.open(url, create=True)
    assert "file:///path" in caught.value.hint


def test_newer_store(store, tmp_path):
    """The layout of a newer snaplib is not touched."""
    (tmp_path / "store" / "snaplib-store.json").write_text('{"format": 3}')
    with pytest.raises(StoreTooNew, match="format 3"):
        Store.open(store.url)


def test_a_mark_of_something_else(store, tmp_path):
    """A mark that is not ours is not taken for ours."""
    (tmp_path / "store" / "snaplib-store.json").write_text("[]")
    with pytest.raises(NotAStore):
        Store.open(store.url, create=True)


@pytest.mark.parametrize(
    ("number", "reading", "expected"),
    [
        (errno.ENOSPC, False, StoreFull),
        (errno.EDQUOT, False, StoreFull),
        (errno.EROFS, False, StoreReadOnly),
        (errno.EACCES, False, StoreReadOnly),
        (errno.EACCES, True, StoreDenied),
        (errno.EIO, True, StoreError),
        (errno.EIO, False, StoreError),
    ],
)
def test_what_errors_mean(tmp_path, number, reading, expected):
    """Each error of the system is the user's error that it means, and names the path."""
    with (
        pytest.raises(StoreError, match=str(tmp_path)) as caught,
        translated(tmp_path, reading=reading),
    ):
        raise OSError(number, os.strerror(number))

    assert type(caught.value) is expected
    assert isinstance(caught.value, OSError)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere; tests/kernel has it")
def test_read_only_folder(store, tmp_path):
    """A store that cannot be written to can be read, and says what is wrong to writers."""
    snapshot = store.begin("key").commit()
    folders = [path for path in (tmp_path / "store").rglob("*") if path.is_dir()]
    for path in [*folders, tmp_path / "store"]:
        path.chmod(0o500)
    try:
        again = Store.open(store.url)
        assert again.latest("key") == snapshot
        with pytest.raises(StoreReadOnly):
            again.begin("key")
    finally:
        for path in [tmp_path / "store", *folders]:
            path.chmod(0o700)


def test_nobody_else_may_read(tmp_path):
    """Whatever the umask, folders are 0700 and files 0600."""
    before = os.umask(0)
    try:
        store = Store.open(str(tmp_path / "store"), create=True)
        sample_snapshot(store)
        store.mark_ended("key", 0)
        writer = store.begin("key")
        writer.pages.run(TASK, 0, 40, 4)
        feed(writer.pages, NOISE)
        modes = {
            (path.is_dir(), stat.S_IMODE(path.stat().st_mode))
            for path in [tmp_path / "store", *(tmp_path / "store").rglob("*")]
        }
        writer.abort()
    finally:
        os.umask(before)

    assert modes == {(True, 0o700), (False, 0o600)}


@given(st.text(max_size=300), st.text(max_size=300))
def test_keys_are_file_names(one, other):
    """Any text is a key; no two share a folder, and none leaves its own."""
    for key in (one, other):
        name = names.key_folder(key)
        assert 0 < len(name.encode()) <= 255
        assert "/" not in name
        assert "\0" not in name
        assert not name.startswith(".")
    assert (names.key_folder(one) == names.key_folder(other)) == (one == other)


@pytest.mark.parametrize(
    "key", ["", ".", "..", "../../etc", "a/b", "ü", "\0", "\ud800", "x" * 5000]
)
def test_keys(store, key):
    """Odd keys are kept apart and come back."""
    snapshot = store.begin(key).commit()
    store.begin(key + "2").commit()

    assert store.latest(key) == snapshot
    assert store.snapshots(key) == [snapshot]
    assert store.latest(key).key == key
    store.mark_ended(key, None, signal=9)
    assert store.latest(key) is None
    assert store.latest(key + "2") is not None
    assert store.ended(key).signal == 9


def test_ids_follow_cause(memory_store, clock):
    """A snapshot is newer than those before it, even if the next machine's clock is behind."""
    first = memory_store.begin("key").commit()
    same = memory_store.begin("key").commit()
    clock.now -= dt.timedelta(hours=1)
    behind = memory_store.begin("key").commit()

    assert first.id < same.id < behind.id
    assert memory_store.latest("key") == behind
    assert memory_store.snapshots() == [behind, same, first]
    assert memory_store.ids() == [behind.id, same.id, first.id]


def test_ended_in_the_same_instant(memory_store):
    """What a task's end makes past does not depend on the clock's resolution."""
    memory_store.begin("key").commit()
    memory_store.mark_ended("key", 0)
    assert memory_store.latest("key") is None
    again = memory_store.begin("key").commit()
    assert memory_store.latest("key") == again
    memory_store.mark_ended("key", 3)
    assert memory_store.latest("key") is None
    assert memory_store.ended("key").exit_code == 3
    assert len(memory_store.snapshots("key")) == 2


def test_get(memory_store, clock):
    """An id may be shortened as long as it is clear."""
    one = memory_store.begin("a").commit()
    clock.now += dt.timedelta(days=1)
    other = memory_store.begin("b").commit()

    assert memory_store.get(one.id) == one
    assert memory_store.get("20261124") == other
    with pytest.raises(NoSuchSnapshot, match="2 snapshots") as caught:
        memory_store.get("2026")
    assert caught.value.hint == "give more of the id"
    for wrong in ("", "1999", "../x"):
        with pytest.raises(NoSuchSnapshot):
            memory_store.get(wrong)


def test_remove(store, tmp_path):
    """A removed snapshot is gone with its bytes; a reader that has it open goes on."""
    snapshot = sample_snapshot(store)
    kept = sample_snapshot(store)
    with store.read(snapshot.id) as reader:
        reader.pages.read(TASK, 0x400000, 1)
        store.remove(snapshot.id)
        reader.pages.read(TASK, 0x400000, 1)

    assert store.snapshots() == [kept]
    assert [path.name for path in (tmp_path / "store" / "objects").iterdir()] == [kept.id]
    with pytest.raises(NoSuchSnapshot):
        store.remove(snapshot.id)


def test_two_writers(store, tmp_path):
    """One writer does not see the other, nor take its objects for debris."""
    with store.begin("key") as one, store.begin("key") as other:
        for writer in (one, other):
            writer.pages.run(TASK, 0, 40, 4)
            feed(writer.pages, NOISE)
        assert store.sweep() == []
        assert store.snapshots() == []
        snapshots = {one.commit().id, other.commit().id}

    assert {snapshot.id for snapshot in store.snapshots()} == snapshots
    assert store.sweep() == []
    for snapshot_id in snapshots:
        assert store.verify(snapshot_id).ok


def test_debris_goes(store, tmp_path):
    """Objects without a manifest and a living writer are removed; those with a manifest stay."""
    snapshot = sample_snapshot(store)
    objects = tmp_path / "store" / "objects"
    (objects / snapshot.id / ".writer").touch()
    debris = objects / "20261123T221530.000000-aaaaaa"
    debris.mkdir()
    (debris / "segment-0000").write_bytes(b"x" * 10000)
    (objects / ".dead-1").mkdir()
    (tmp_path / "store" / "tmp" / "leftover").touch()

    assert store.sweep() == [debris.name]
    assert [path.name for path in objects.iterdir()] == [snapshot.id]
    assert not (objects / snapshot.id / ".writer").exists()
    assert list((tmp_path / "store" / "tmp").iterdir()) == []
    assert store.verify(snapshot.id).ok


def test_full_before_it_begins(store, tmp_path, monkeypatch):
    """A writer that has no room for its lock file leaves no folder."""

    def full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("snaplib.store.local.create_file", full)
    with pytest.raises(StoreFull):
        store.begin("key")

    assert list((tmp_path / "store" / "objects").iterdir()) == []


def test_an_error_is_not_hidden_by_the_next(store, monkeypatch):
    """When cleaning up fails as well, what is told is what went wrong first."""

    def fails(prefix):
        raise StoreError(f"cannot remove {prefix}")

    monkeypatch.setattr(store.backend, "delete_folder", fails)
    with pytest.raises(UsageError, match="not JSON"):
        store.begin("key").commit(extra={"set": {1}})
    monkeypatch.undo()

    assert len(store.sweep()) == 1


def test_put_new_once(store):
    """Of two that put the same name one succeeds, and the content is the first one's."""
    store.backend.put_new("manifests/x", b"one")
    with pytest.raises(FileExistsError):
        store.backend.put_new("manifests/x", b"other")
    assert store.backend.get("manifests/x") == b"one"


def test_a_stream_cannot_take_a_name_of_ours(memory_store):
    """Streams have names of their own."""
    with memory_store.begin("key") as writer:
        for name in ("", "index", "images", "segment-0000", "a/b", ".writer"):
            with pytest.raises(UsageError, match="cannot be the name"):
                writer.put_stream(name, None)


def test_fields_that_are_not_json(memory_store, memory):
    """A mistake of the caller in the manifest's fields leaves nothing behind."""
    with pytest.raises(UsageError, match="not JSON"):
        memory_store.begin("key").commit(extra={"when": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)})
    assert sorted(memory.objects) == ["snaplib-store.json"]
