"""What an earlier snapshot of the key has is found in it by its content, and not stored again."""

from __future__ import annotations

import random

import attrs
import blake3
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snaplib.errors import StoreTooNew
from snaplib.store import (
    PAGE_BYTES,
    Index,
    PageLogOptions,
    RunSet,
    Store,
    StoredObject,
    names,
)
from snaplib.store.blocks import (
    BLOCK_PAGES,
    BlockFinder,
    Blocks,
    block_digests,
    blocks_from_bytes,
    blocks_to_bytes,
)
from snaplib.store.index_format import index_to_bytes
from snaplib.testing.snapshots import SAMPLE_TASK as TASK
from snaplib.testing.snapshots import feed
from snaplib.testing.stores import MemoryBackend

BLOCK_BYTES = BLOCK_PAGES * PAGE_BYTES
#: Frames of four blocks; segments of four such frames.
OPTIONS = PageLogOptions(
    codec="none", frame_bytes=4 * BLOCK_BYTES, segment_bytes=16 * BLOCK_BYTES, workers=1
)


def noise(seed, pages):
    """Pages that are like no others."""
    return random.Random(seed).randbytes(pages * PAGE_BYTES)


def pages_of(runs):
    """What each page of some runs holds, by its number."""
    return {
        first + at: data[at * PAGE_BYTES : (at + 1) * PAGE_BYTES]
        for first, data in runs
        for at in range(len(data) // PAGE_BYTES)
    }


def dump(store, runs, options=OPTIONS, *, copied=True):
    """A full snapshot of runs, (first page, bytes): sent by CRIU, or copied ahead by us."""
    with store.begin("key", options, find=True) as writer:
        log = writer.pages
        if copied:
            copy(log, pages_of(runs))
        for first, data in runs:
            pages = len(data) // PAGE_BYTES
            if copied:
                log.hole(TASK, first * PAGE_BYTES, pages, 4)
            else:
                log.run(TASK, first * PAGE_BYTES, pages, 4)
                feed(log, data, step_bytes=300_000)
        return writer.commit()


def copy(log, content):
    """Copy pages as a round of a warm copy does."""
    base = log.page_number(TASK, 0)
    copier = log.feed()

    def read(room, some):
        data = b"".join(
            content[one - base]
            for begin, end in zip(some.begins.tolist(), some.ends.tolist(), strict=True)
            for one in range(begin, end)
        )
        room[: len(data)] = data
        return some

    wanted = RunSet.from_pages(np.array(sorted(content)) + base)
    assert copier.gather(wanted, read, lambda: False) == wanted
    log.take(copier)
    log.release(copier)


def check(store, snapshot, runs):
    """The snapshot is whole and holds just these runs."""
    assert store.verify(snapshot.id).findings == ()
    with store.read(snapshot.id) as reader:
        assert reader.pages.index.pages == sum(len(data) for _, data in runs) // PAGE_BYTES
        for first, data in runs:
            assert reader.pages.read(TASK, first * PAGE_BYTES, len(data) // PAGE_BYTES) == data


def own_bytes(snapshot):
    """How much a snapshot has in segments of its own."""
    return sum(one.size_bytes for one in snapshot.segments if one.owner == snapshot.id)


@pytest.mark.parametrize("copied", [False, True])
def test_the_same_memory_again_costs_nothing(memory_store, copied):
    """Wherever frames are cut: a few pages more before it, as a new mapping brings, change nothing."""
    heap = noise(1, 10 * BLOCK_PAGES)
    first = dump(memory_store, [(0x400, heap)])
    assert (first.kind, own_bytes(first)) == ("full", len(heap))

    more = noise(2, 5)
    runs = [(3, more), (0x400, heap)]
    second = dump(memory_store, runs, copied=copied)
    assert (second.kind, second.parent) == ("incremental", first.id)
    assert own_bytes(second) == len(more)
    check(memory_store, second, runs)
    # And once more, from what the second has of the first.
    third = dump(memory_store, runs, copied=not copied)
    assert own_bytes(third) == len(more)
    memory_store.remove(first.id)
    memory_store.remove(second.id)
    check(memory_store, third, runs)


@pytest.mark.parametrize("copied", [False, True])
def test_what_changed_is_stored(memory_store, copied):
    """A block in which one byte is another is stored; its neighbours are not."""
    heap = bytearray(noise(1, 12 * BLOCK_PAGES))
    dump(memory_store, [(0, bytes(heap))])
    heap[5 * BLOCK_BYTES + 17] ^= 1
    second = dump(memory_store, [(0, bytes(heap))], copied=copied)
    assert own_bytes(second) == BLOCK_BYTES
    check(memory_store, second, [(0, bytes(heap))])


KINDS = [noise(seed, BLOCK_PAGES) for seed in range(6)] + [bytes(BLOCK_BYTES)]
#: Runs: the gap before, how many pages come before the first whole block, blocks that come again here and there, and
#: how many pages come after them.
SHAPES = st.lists(
    st.tuples(
        st.integers(1, 40),
        st.integers(0, 3),
        st.lists(st.integers(0, len(KINDS) - 1), max_size=9),
        st.integers(0, 20),
    ),
    min_size=1,
    max_size=4,
)


def memory_of(shapes):
    """Runs of the shapes that were drawn."""
    runs, at = [], 0
    for gap, skew, kinds, odd in shapes:
        begin = -(-(at + gap + 4) // BLOCK_PAGES) * BLOCK_PAGES - skew
        data = noise(f"{begin} {skew}", skew) + b"".join(KINDS[one] for one in kinds)
        data += noise(odd, odd)
        if data:
            runs.append((begin, data))
            at = begin + len(data) // PAGE_BYTES
    return runs


@settings(deadline=None, max_examples=25)
@given(
    SHAPES,
    SHAPES,
    st.tuples(st.booleans(), st.booleans()),
    st.sampled_from([2, 4, 7]),
)
def test_any_two_memories(first, second, copied, frame_blocks):
    """Both snapshots hold what they should, and the second still does when the first is gone."""
    store = Store.over(MemoryBackend(), create=True)
    options = attrs.evolve(OPTIONS, frame_bytes=frame_blocks * BLOCK_BYTES)
    both = [memory_of(first), memory_of(second)]
    made = [dump(store, runs, options, copied=one) for runs, one in zip(both, copied, strict=True)]
    for snapshot, runs in zip(made, both, strict=True):
        check(store, snapshot, runs)
    store.remove(made[0].id)
    check(store, made[1], both[1])


def test_who_stands_still_does_not_wait_for_digests(memory_store):
    """Where nothing can be found, what CRIU sends is not hashed; and so nothing is found in it."""
    heap = noise(1, 8 * BLOCK_PAGES)
    first = dump(memory_store, [(0, heap)], copied=False)
    assert names.BLOCKS not in first.objects
    second = dump(memory_store, [(0, heap)], copied=False)
    assert (second.kind, own_bytes(second)) == ("full", len(heap))


def test_an_encrypted_store(memory):
    """The digests are encrypted like everything else, and found all the same."""
    store = Store.over(memory, create=True, encryption_key=bytes(32))
    heap = noise(1, 8 * BLOCK_PAGES)
    first = dump(store, [(0, heap)])
    digest = block_digests(memoryview(heap), [0]).tobytes()
    assert all(digest not in memory.get(name) for name in memory.names(""))
    second = dump(store, [(0, heap)])
    assert (second.parent, own_bytes(second)) == (first.id, 0)
    check(store, second, [(0, heap)])


def test_segments_of_little_use_are_not_lent(memory_store):
    """However often a task comes back, no more than about as much again is kept as it has."""
    heap = bytearray(noise(0, 32 * BLOCK_PAGES))
    randomly = random.Random(1)
    previous = None
    for turn in range(16):
        for block in randomly.sample(range(32), 4):
            at = block * BLOCK_BYTES
            heap[at : at + BLOCK_BYTES] = noise(f"{turn} {block}", BLOCK_PAGES)
        snapshot = dump(memory_store, [(0, bytes(heap))])
        if previous is not None:
            memory_store.remove(previous.id)
        previous = snapshot
        kept = sum(one.size_bytes for one in snapshot.segments)
        assert kept <= 3 * len(heap)
        assert turn == 0 or own_bytes(snapshot) < len(heap) / 2
    check(memory_store, previous, [(0, bytes(heap))])


def test_nothing_is_found_in_what_is_given_up(memory_store):
    """Before all has been seen no lent segment is worn out; what is worn out then is copied for good."""
    heap = noise(1, 48 * BLOCK_PAGES)
    dump(memory_store, [(0, heap)])
    content = pages_of([(0, heap)])
    kept = {number: content[number] for number in range(2 * BLOCK_PAGES)}
    with memory_store.begin("key", OPTIONS, find=True) as writer:
        copy(writer.pages, kept)
        assert writer.pages.found_pages == len(kept)
        assert not writer.worn_out(seen_all=False).pages
        worn = writer.worn_out()
        assert worn.pages == len(kept)
        writer.pages.forget(worn)
        copy(writer.pages, kept)
        writer.pages.hole(TASK, 0, len(kept), 4)
        snapshot = writer.commit()
    assert snapshot.kind == "full"
    check(memory_store, snapshot, [(0, heap[: 2 * BLOCK_BYTES])])


def test_a_chain_keeps_what_it_knows(memory_store):
    """A snapshot that is incremental to another in the same run passes on what that one knew."""
    heap = noise(1, 8 * BLOCK_PAGES)
    with memory_store.begin("key", OPTIONS) as writer:
        copy(writer.pages, pages_of([(0, heap)]))
        writer.pages.hole(TASK, 0, 8 * BLOCK_PAGES, 4)
        writer.commit()
        parent = writer.as_parent()
    with memory_store.begin("key", OPTIONS, parent=parent) as writer:
        writer.pages.hole(TASK, 0, 8 * BLOCK_PAGES, 4)
        writer.commit()
    third = dump(memory_store, [(0, heap)])
    assert own_bytes(third) == 0
    check(memory_store, third, [(0, heap)])


def test_after_a_failure_nothing_lost_is_lent(memory):
    """Blocks of frames that were lost are forgotten with them."""
    store = Store.over(memory, create=True)
    heap = noise(1, 32 * BLOCK_PAGES)
    content = pages_of([(0, heap)])
    writer = store.begin("key", OPTIONS)
    copy(writer.pages, content)
    writer.pages.drain()
    writer.pages.hole(TASK, 0, 1, 4)
    writer._finishing = True
    lost = writer.retract()
    base = writer.pages.page_number(TASK, 0)
    again = {number: page for number, page in content.items() if lost.contains([number + base])[0]}
    assert len(again) < len(content)
    copy(writer.pages, again)
    writer.pages.hole(TASK, 0, len(content), 4)
    first = writer.commit()
    check(store, first, [(0, heap)])
    second = dump(store, [(0, heap)])
    assert own_bytes(second) == 0
    check(store, second, [(0, heap)])


@pytest.mark.parametrize("damage", ["byte", "gone", "newer", "manifest"])
def test_a_snapshot_that_cannot_be_read_lends_nothing(memory, damage):
    """The next one is stored whole."""
    store = Store.over(memory, create=True)
    heap = noise(1, 8 * BLOCK_PAGES)
    first = dump(store, [(0, heap)])
    name = names.object_name(first.id, names.BLOCKS)
    if damage == "manifest":
        name = names.manifest_name("key", first.id)
    data = bytearray(memory.get(name))
    data[8 if damage == "newer" else 40] ^= 0xFF
    memory.delete(name)
    if damage != "gone":
        memory.put_new(name, bytes(data))
    with store.begin("key", OPTIONS, find=True) as writer:
        writer.pages.run(TASK, 0, len(heap) // PAGE_BYTES, 4)
        feed(writer.pages, heap)
        second = writer.commit()
    assert (second.kind, own_bytes(second)) == ("full", len(heap))
    check(store, second, [(0, heap)])


def test_an_index_that_lies_lends_nothing(memory_store, memory):
    """Segments that there are not would be looked up in vain."""
    heap = noise(1, 8 * BLOCK_PAGES)
    first = dump(memory_store, [(0, heap)])
    with memory_store.read(first.id) as reader:
        frames = reader.pages.index.frames.copy()
        frames["segment"] = 2**32 - 1
        data = index_to_bytes(Index(reader.pages.index.runs, frames))
    objects = {
        **first.objects,
        names.INDEX: StoredObject(len(data), blake3.blake3(data).hexdigest()),
    }
    for name, text in (
        (names.object_name(first.id, names.INDEX), data),
        (names.manifest_name("key", first.id), attrs.evolve(first, objects=objects).to_json()),
    ):
        memory.delete(name)
        memory.put_new(name, text)
    second = dump(memory_store, [(0, heap)])
    assert (second.kind, own_bytes(second)) == ("full", len(heap))


def blocks(count):
    """Some blocks, one behind the other."""
    digests = np.arange(3 * count, dtype=np.uint64).reshape(-1, 3)
    return Blocks(np.arange(count, dtype=np.uint64) * BLOCK_PAGES, digests)


def test_as_they_are_stored():
    """They come back, in order, by the frames of the index."""
    starts = np.array([0, 64, 64, 96], np.uint64)
    back = blocks_from_bytes(blocks_to_bytes(blocks(6)), starts)
    assert back.places.tolist() == [0, 16, 32, 48, 2 << 20, (2 << 20) + 16]
    assert back.digests.tolist() == blocks(6).digests.tolist()
    assert len(blocks_from_bytes(blocks_to_bytes(Blocks()), np.zeros(1, np.uint64))) == 0


@pytest.mark.parametrize(
    ("position", "problem"),
    [(96, "beyond"), (2**64 - 1, "beyond"), (2**64 - 8, "beyond"), (56, "within"), (81, "within")],
)
def test_positions_that_lie(position, problem):
    """A block is within a frame."""
    lying = Blocks(np.array([position], np.uint64), blocks(1).digests)
    with pytest.raises(ValueError, match=problem):
        blocks_from_bytes(blocks_to_bytes(lying), np.array([0, 64, 64, 96], np.uint64))


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 60))
def test_any_bytes(data, cut):
    """Whatever is there is refused, or it is blocks."""
    starts = np.array([0, 64, 128], np.uint64)
    good = blocks_to_bytes(blocks(4))
    for one in (data, good[:cut] + data, good[:24] + data):
        try:
            found = blocks_from_bytes(one, starts)
        except (ValueError, StoreTooNew):
            continue
        assert ((found.places >> np.uint64(20)) < 2).all()


def test_digests_that_begin_alike_are_not_the_same():
    """Only all of a digest makes a block known."""
    one = Blocks(np.array([7], np.uint64), np.array([[1, 2, 3]], np.uint64))
    finder = BlockFinder(one)
    wanted = np.array([[1, 2, 4], [1, 2, 3], [1, 2, 3], [0, 2, 3], [2, 2, 3]], np.uint64)
    found, places = finder.find(wanted[[0, 3, 4]])
    assert (found.any(), len(places)) == (False, 0)
    # Neither do they hide it.
    found, places = finder.find(wanted[[3, 0, 1, 2, 4]])
    assert (found.tolist(), places.tolist()) == ([False, False, True, False, False], [7])
    assert not finder.find(wanted)[0].any()
