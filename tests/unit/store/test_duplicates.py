"""What comes again is not stored again, and is there all the same."""

from __future__ import annotations

import hashlib

import attrs
import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from snaplib.store import PAGE_BYTES, PageLogOptions
from snaplib.store.codec import ZERO, digest
from snaplib.store.framewriter import FrameWriter
from snaplib.store.index import FRAME
from snaplib.store.segments import SegmentWriter
from snaplib.testing.memories import SMALL, SampleMemory, check
from snaplib.testing.snapshots import SAMPLE_TASK as TASK
from snaplib.testing.snapshots import feed

FRAME_PAGES = 4
FRAME_BYTES = FRAME_PAGES * PAGE_BYTES


@given(st.binary(max_size=600))
def test_the_long_hash_is_nobody_elses(data):
    """It depends on a secret of this process: nobody can make two frames that have the same."""
    checksum, whole = digest(data)
    assert checksum == xxhash.xxh3_64_intdigest(data)
    assert whole == digest(bytes(bytearray(data)))[1]
    assert whole != xxhash.xxh3_128_intdigest(data)


def content(name: str) -> bytes:
    """A frame that does not compress, one that does, and nothing."""
    if name == "zero":
        return bytes(FRAME_BYTES)
    if name.startswith("text"):
        return (name.encode() * FRAME_BYTES)[:FRAME_BYTES]
    return hashlib.shake_128(name.encode()).digest(FRAME_BYTES)


@pytest.mark.parametrize("codec", ["none", "zstd", "auto"])
def test_each_content_is_stored_once(memory_store, codec):
    """Whichever kind of frame it is; all of it is read back, and verify finds nothing."""
    names = ["noise a", "text a", "noise b", "zero", "text a", "noise a", "noise a", "text b"] * 3
    options = PageLogOptions(codec=codec, frame_bytes=FRAME_BYTES)
    with memory_store.begin("key", options) as writer:
        for number, name in enumerate(names):
            writer.pages.run(TASK, number << 20, FRAME_PAGES, 4)
            feed(writer.pages, content(name))
            # Those that are under way at the same time are not seen by one another.
            writer.pages.drain()
        snapshot = writer.commit()
    assert memory_store.verify(snapshot.id).findings == ()
    with memory_store.read(snapshot.id) as reader:
        for number, name in enumerate(names):
            assert reader.pages.read(TASK, number << 20, FRAME_PAGES) == content(name)
        frames = reader.pages.index.frames
    stored = frames[frames["codec"] != ZERO]
    assert len(frames) == len(names)
    # With auto, a frame may be stored as it is one time and compressed another.
    assert len(np.unique(stored["offset"])) <= (4 if codec != "auto" else 8)
    assert len(np.unique(stored["offset"])) < len(stored)


def test_a_failing_store_lends_nothing(memory):
    """After a failure nothing is found in what is lost."""
    segments = SegmentWriter(lambda number: memory.create(f"segment-{number}"), FRAME_BYTES)
    writer = FrameWriter(
        segments, PageLogOptions(codec="none", frame_bytes=FRAME_BYTES), np.empty(0, FRAME)
    )
    try:
        put(writer, content("noise a"))
        writer.drain()
        writer.salvage()
        before = sum(segments.sizes())
        put(writer, content("noise a"))
        put(writer, content("noise b"))
        writer.drain()
        # The first segment was full, and so it is whole.
        assert sum(segments.sizes()) == before + FRAME_BYTES
        rows = writer.frames()
        assert rows["segment"].tolist() == [0, 0, 1]
        writer.forget([0])
        put(writer, content("noise a"))
        put(writer, content("noise b"))
        writer.drain()
        assert writer.frames()["segment"].tolist() == [0, 0, 1, 2, 1]
    finally:
        writer.close()
        segments.abort()


def put(writer, data):
    number, buffer = writer.acquire()
    buffer[: len(data)] = data
    writer.submit(number, buffer, len(data))


def test_segments_that_go_keep_nothing(memory_store):
    """Pages are copied anew so that a segment can go: they are not found in it again."""
    options = attrs.evolve(SMALL, codec="none")
    memory = SampleMemory(memory_store, pages=64, options=options)
    memory.copy_ahead()
    memory.write(set(range(64)) - {3, 30, 50})
    memory.copy_ahead()
    worn = memory.writer.worn_out()
    assert worn.pages
    memory.changed |= {one for one in range(64) if worn.contains([memory.number(one)])[0]}
    memory.copy_ahead()
    assert not memory.writer.worn_out().pages
    snapshot, expected = memory.dump()
    check(memory_store, snapshot.id, expected)
