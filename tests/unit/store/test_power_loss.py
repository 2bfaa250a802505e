"""The power goes at any moment of copying, dumping and pruning: what is found then is whole, the old or the new."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path

import attrs
import obstore
import pytest
from obstore.store import MemoryStore

from snaplib.errors import NotAStore
from snaplib.store import PAGE_BYTES, PageLogOptions, Store
from snaplib.store.remote import objects
from snaplib.store.remote.backend import RemoteBackend
from snaplib.testing.bucketloss import RecordedBucket
from snaplib.testing.memories import SampleMemory, check
from snaplib.testing.powerloss import LOSSES, RecordedDisk

#: Frames of two blocks.
BLOCK_OPTIONS = PageLogOptions(frame_bytes=32 * PAGE_BYTES, codec="none", workers=1)


@attrs.define
class Story:
    """A snapshot's life, in operations: none before `begun`, certainly there from `made` on, none after `gone`."""

    content: dict[int, int]
    begun: int
    made: int
    going: int = 10**9
    gone: int = 10**9


def live(url_or_backend, moments):
    """Copy and dump a task twice and prune; return the life of each snapshot.

    Args:
        url_or_backend: Where.
        moments: Tells how many operations there have been.
    """
    store = opened(url_or_backend)
    stories = {}
    memory = SampleMemory(store, pages=20)
    for _ in range(2):
        memory.copy_ahead()
        memory.write([1, 2, 17])
        memory.copy_ahead()
        memory.write([2])
        memory.declare()
        memory.changed.clear()
        before = store.latest("key")
        if before is not None:
            (lent,) = memory.writer.claim_objects(before, lambda name: name == "file-1")
            memory.writer.borrow(lent.reference)
        memory.writer.put_stream("file-1", io.BytesIO(b"said"))
        begun = len(moments)
        snapshot = memory.writer.commit()
        stories[snapshot.id] = Story(dict(memory.content), begun, len(moments))
        memory.writer = store.begin("key", memory.options, parent=memory.writer.as_parent())
        memory.write([3])
    memory.writer.abort()
    prune(store, stories, moments)
    return stories


def come_again(url_or_backend, moments):
    """Copy a task ahead and dump it, copy what was restored of it ahead and dump it again, and prune.

    All of the second snapshot's pages but what has changed are in the first: found there by their content.
    """
    store = opened(url_or_backend)
    stories = {}
    for changed in ([], [37]):
        memory = SampleMemory(store, 40, BLOCK_OPTIONS, find=True)
        memory.write(changed)
        memory.copy_ahead()
        memory.declare()
        begun = len(moments)
        snapshot = memory.writer.commit()
        stories[snapshot.id] = Story(dict(memory.content), begun, len(moments))
        assert "blocks" in snapshot.objects
    assert [one.owner for one in snapshot.segments] == [min(stories), max(stories)]
    prune(store, stories, moments)
    return stories


def opened(url_or_backend):
    """The new store of a story."""
    if isinstance(url_or_backend, Path):
        return Store.open(url_or_backend)
    return Store.over(url_or_backend, create=True)


def prune(store, stories, moments):
    """Remove the first of two snapshots."""
    old = stories[min(stories)]
    old.going = len(moments)
    assert [one.id for one in store.prune(keep=1)] == [min(stories)]
    old.gone = len(moments)


def judge(store, stories, moment, *, tidied):
    """Check what there is of a store whose machine went at a moment.

    Args:
        store: The store, opened again.
        stories: What there may be.
        moment: When, in operations.
        tidied: A store that takes everything without a manifest for debris.
    """
    known = {one for one, story in stories.items() if story.begun <= moment < story.gone}
    certain = {one for one, story in stories.items() if story.made <= moment < story.going}
    found = set(store.ids())
    assert certain <= found <= known
    assert found or not any(story.made <= moment for story in stories.values())
    latest = store.latest("key")
    assert (latest.id if latest else None) == max(found, default=None)
    for one in found:
        check(store, one, stories[one].content)

    tidied.prune(keep=5)
    assert set(tidied.ids()) == found
    needed = set()
    for snapshot in tidied.snapshots():
        check(tidied, snapshot.id, stories[snapshot.id].content)
        needed |= {f"objects/{snapshot.id}/{name}" for name in snapshot.objects}
        needed |= {f"objects/{one.owner}/{one.name}" for one in snapshot.needed}
    left = {
        name
        for name in tidied.backend.names("objects")
        if not name.endswith(("/key", "/uses", "/borrows"))
    }
    assert left == needed
    assert not list(tidied.backend.names("tmp"))
    return found


def since(story, stories):
    """From which moment on a story has something new."""
    return 0 if story is live else min(one.begun for one in stories.values())


def fresh_folder():
    """A folder in memory where that is possible: thousands of files are about to be made."""
    shared = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None)


@pytest.mark.slow
@pytest.mark.parametrize("story", [live, come_again])
def test_a_disk_whenever_the_power_goes(story):
    """After every operation, whatever became of what was not synced."""
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(fresh_folder()))
        with RecordedDisk(root) as disk:
            stories = story(root, disk)
        seen, outcomes = set(), set()
        for moment in range(since(story, stories), len(disk) + 1):
            for loss in LOSSES:
                left = disk.after(moment, loss)
                state = frozenset(left.items())
                if state in seen:
                    continue
                seen.add(state)
                with fresh_folder() as name:
                    folder = Path(name)
                    for path, content in left.items():
                        if content is None:
                            (folder / path).mkdir(mode=0o700)
                        else:
                            (folder / path).write_bytes(content)
                    # Whatever it is, it can be made a store again.
                    store = Store.open(folder)
                    outcomes.add(len(judge(store, stories, moment, tidied=store)))
                    assert not list(folder.rglob(".*"))
        assert len(seen) > 100
        assert outcomes == {0, 1, 2}


def test_syncing_is_what_saves_it():
    """Without the syncing of files, the same losses are noticed: the test above sees what it looks for."""
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(fresh_folder()))
        with RecordedDisk(root) as disk:
            live(root, disk)
        for loss in ("nothing", "names"):
            assert disk.after(len(disk), loss)
        synced = [one for one in disk._operations if one.kind == "sync"]
        disk._operations = [one for one in disk._operations if one not in synced]
        assert disk.after(len(disk), "nothing") == {}
        left = disk.after(len(disk), "names")
        assert {content for content in left.values() if content is not None} == {b""}


@pytest.mark.slow
@pytest.mark.parametrize("story", [live, come_again])
def test_a_bucket_whenever_the_machine_goes(story, monkeypatch):
    """Between any two requests, and within those that delete several objects."""
    # Such that segments go in parts.
    monkeypatch.setattr(objects, "PART_BYTES", 16 << 10)
    with RecordedBucket() as bucket:
        stories = story(RemoteBackend("memory://x", MemoryStore()), bucket)
    outcomes = set()
    for moment in range(since(story, stories), len(bucket) + 1):
        for left in bucket.after(moment):
            target = MemoryStore()
            for name, content in left.items():
                obstore.put(target, name, content)
            backend = RemoteBackend("memory://x", target)
            try:
                store = Store.over(backend)
            except NotAStore:
                assert moment == 0
                continue
            # What is young may be somebody's who still writes.
            assert store.sweep() == []
            tidied = Store.over(RemoteBackend("memory://x", target, lease_s=-10))
            outcomes.add(len(judge(store, stories, moment, tidied=tidied)))
    assert outcomes == {0, 1, 2}
