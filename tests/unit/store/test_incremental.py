"""Snapshots that share segments with earlier ones: whole, each of them, whatever is removed when."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snaplib.errors import NoSuchSnapshot, SnapshotDamaged, StoreFull
from snaplib.store import PAGE_BYTES, Store, names
from snaplib.testing.memories import SMALL, SampleMemory, check
from snaplib.testing.snapshots import NOISE, feed
from snaplib.testing.snapshots import SAMPLE_SHARED as SHARED
from snaplib.testing.snapshots import SAMPLE_TASK as TASK
from snaplib.testing.stores import FailingBackend, MemoryBackend

steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sets(st.integers(0, 14), max_size=8)),
        st.tuples(st.just("drop"), st.sets(st.integers(0, 14), max_size=4)),
        st.tuples(st.just("copy"), st.none()),
        st.tuples(st.just("dump"), st.none()),
        st.tuples(st.just("remove"), st.integers(0, 20)),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(steps)
def test_every_snapshot_is_whole_whatever_is_removed(drawn):
    """Each snapshot reads as the memory was, and nothing is left when all are gone."""
    backend = MemoryBackend()
    store = Store.over(backend, create=True)
    memory = SampleMemory(store, pages=12)
    taken = {}
    for word, argument in drawn:
        if word == "write":
            memory.write(argument)
        elif word == "drop":
            for one in argument & memory.content.keys():
                del memory.content[one]
                memory.changed.discard(one)
        elif word == "copy":
            memory.copy_ahead()
        elif word == "dump":
            snapshot, content = memory.dump()
            taken[snapshot.id] = snapshot, content
        elif taken:
            gone = sorted(taken)[argument % len(taken)]
            store.remove(gone)
            del taken[gone]
            # A log whose parent has gone begins anew: here as in life.
            if memory.writer.pages.covered().pages and not store.ids("key"):
                memory.writer.abort()
                memory = SampleMemory(store)
            for snapshot, content in taken.values():
                check(store, snapshot.id, content)
    for snapshot, content in taken.values():
        check(store, snapshot.id, content)
    memory.writer.abort()
    for snapshot_id in list(taken):
        store.remove(snapshot_id)
    # What the last writer had claimed of a snapshot that went meanwhile.
    store.sweep()
    assert sorted(backend.objects) == ["snaplib-store.json"]


def test_what_is_added_is_what_changed(store):
    """The second snapshot stores the pages that changed, and says where the others are."""
    memory = SampleMemory(store)
    first, _ = memory.dump()
    memory.write([3, 17])
    second, content = memory.dump()
    memory.writer.abort()

    assert (first.kind, first.parent) == ("full", None)
    assert (second.kind, second.parent) == ("incremental", first.id)
    own = [segment for segment in second.segments if segment.owner == second.id]
    assert sum(segment.size_bytes for segment in own) <= 2 * PAGE_BYTES
    check(store, second.id, content)


def test_warm_copies_make_a_full_snapshot(store):
    """What was copied ahead is the snapshot's own."""
    memory = SampleMemory(store)
    for number in range(5):
        memory.copy_ahead()
        memory.write([number, 20])
    snapshot, content = memory.dump()
    memory.writer.abort()
    assert snapshot.kind == "full"
    check(store, snapshot.id, content)


def test_segments_outlive_their_snapshot(store, tmp_path):
    """Of a removed snapshot those segments stay that another needs, and go with the last."""
    memory = SampleMemory(store)
    first, _ = memory.dump()
    memory.write([1])
    second, content = memory.dump()
    memory.writer.abort()
    store.remove(first.id)

    folder = tmp_path / "store" / "objects" / first.id
    left = {path.name for path in folder.iterdir()}
    assert left == {"key", *(one.name for one in second.segments if one.owner == first.id)}
    assert store.ids() == [second.id]
    check(store, second.id, content)
    with pytest.raises(NoSuchSnapshot):
        store.get(first.id)
    store.remove(second.id)
    assert list((tmp_path / "store" / "objects").iterdir()) == []


def test_a_writer_keeps_what_it_is_going_to_need(store):
    """A snapshot that is being written survives the removal of its parent."""
    memory = SampleMemory(store)
    first, _ = memory.dump()
    memory.write([1])
    store.remove(first.id)
    store.sweep()
    second, content = memory.dump()
    memory.writer.abort()
    check(store, second.id, content)
    assert second.parent == first.id


def test_a_parent_that_is_gone_is_noticed(store, tmp_path):
    """Nobody refers to what may be removed already."""
    memory = SampleMemory(store)
    first, _ = memory.dump()
    parent = memory.writer
    memory.writer.abort()
    store.remove(first.id)
    with pytest.raises(NoSuchSnapshot, match="has been removed"):
        store.begin("key", SMALL, parent=parent._parent)
    assert list((tmp_path / "store" / "objects").iterdir()) == []


def test_a_damaged_manifest_deletes_nothing(memory_store, memory):
    """Who does not know what is referred to keeps everything."""
    task = SampleMemory(memory_store)
    first, _ = task.dump()
    task.write([1])
    second, content = task.dump()
    task.writer.abort()
    name = names.manifest_name("key", second.id)
    whole = bytes(memory.objects[name])
    memory.objects[name][20] ^= 1
    memory_store.remove(first.id)
    memory_store.begin("other").commit()
    memory.objects[name] = bytearray(whole)
    check(memory_store, second.id, content)
    memory_store.sweep()
    check(memory_store, second.id, content)


def test_damage_in_a_segment_of_another_snapshot_is_found(memory_store, memory):
    """Each snapshot is checked wholly, wherever its bytes are."""
    task = SampleMemory(memory_store)
    first, _ = task.dump()
    task.write([1])
    second, _ = task.dump()
    task.writer.abort()
    name = names.object_name(first.id, "segment-0000")
    memory.objects[name][5] ^= 4
    assert {finding.object for finding in memory_store.verify(second.id).findings} == {name}
    del memory.objects[name]
    assert [str(one) for one in memory_store.verify(second.id).findings] == [f"{name}: is missing"]
    with memory_store.read(second.id) as reader, pytest.raises(SnapshotDamaged, match="is missing"):
        reader.pages.read(TASK, 0, 1)


def test_a_store_that_fills_up_in_a_copy(memory):
    """The error comes out, and what was committed before stays whole."""
    store = Store.over(memory, create=True)
    first, content = SampleMemory(store).dump()
    memory_of_task = SampleMemory(
        Store.over(FailingBackend(memory, 20_000)),
        pages=400,
        options=attrs.evolve(SMALL, codec="none"),
    )
    with pytest.raises(StoreFull):
        memory_of_task.copy_ahead()
    memory_of_task.writer.abort()
    check(store, first.id, content)


def test_mostly_dead_segments_are_told(store):
    """What a segment still has, and which pages those are."""
    memory = SampleMemory(store, pages=64)
    memory.copy_ahead()
    memory.write(range(4, 60))
    memory.copy_ahead()
    log = memory.writer.pages
    assert log.pages_in(range(9)) == log.covered()
    before = log.live_bytes(9)
    fullest = int(np.argmax(before))
    log.forget(log.pages_in([fullest]))
    after = log.live_bytes(9)
    assert before[fullest] > after[fullest] == 0
    assert np.delete(after, fullest).tolist() == np.delete(before, fullest).tolist()
    memory.writer.abort()


def test_shared_memory_and_tasks_do_not_mix(store):
    """The same address in two spaces is two pages."""
    with store.begin("key", SMALL) as writer:
        for space, at in ((TASK, 0), (SHARED, 4)):
            writer.pages.run(space, 0x2000, 2, 4)
            feed(writer.pages, NOISE[at * PAGE_BYTES : (at + 2) * PAGE_BYTES])
        snapshot = writer.commit()
    with store.read(snapshot.id) as reader:
        assert reader.pages.read(TASK, 0x2000, 2) == NOISE[: 2 * PAGE_BYTES]
        assert reader.pages.read(SHARED, 0x2000, 2) == NOISE[4 * PAGE_BYTES : 6 * PAGE_BYTES]


_WRITER = """
import sys
from snaplib.store import Store
from snaplib.testing.memories import SampleMemory
store = Store.open(sys.argv[1], create=True)
memory = SampleMemory(store)
print("ready", flush=True)
while True:
    memory.write([1, 2, memory.version % 24])
    memory.copy_ahead()
    memory.write([memory.version % 7])
    snapshot, _ = memory.dump()
    print(snapshot.id, flush=True)
    old = store.ids("key")[2:]
    for one in old:
        store.remove(one)
"""


def test_killed_while_chaining(tmp_path):
    """Killed at any moment, also of a removal: what there is is whole, and debris goes."""
    path = tmp_path / "store"
    random.seed(23)
    for _ in range(7):
        command = [sys.executable, "-c", _WRITER, path]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout.readline() == "ready\n"
            time.sleep(random.uniform(0, 0.2))
            writer.send_signal(signal.SIGKILL)
            committed = [line.strip() for line in writer.stdout if line.endswith("\n")]
        store = Store.open(str(path))
        assert set(store.ids()) >= set(committed[-2:])
        for snapshot_id in store.ids():
            assert store.verify(snapshot_id).findings == ()
    for snapshot_id in store.ids():
        store.remove(snapshot_id)
    store.sweep()
    assert list((path / "objects").iterdir()) == []
