"""How much a writer holds does not depend on how much it writes."""

from __future__ import annotations

import threading

import numpy as np

from snaplib.store import PAGE_BYTES, PageLogOptions, bulk
from snaplib.store.framewriter import FrameWriter
from snaplib.store.index import FRAME
from snaplib.store.segments import SegmentWriter
from snaplib.testing.snapshots import SAMPLE_TASK as TASK
from snaplib.testing.snapshots import feed

FRAME_BYTES = 4 * PAGE_BYTES


def text(number: int) -> bytes:
    """A frame that compresses, to a length that is not of whole blocks."""
    return (f"{number} frames, ".encode() * FRAME_BYTES)[:FRAME_BYTES]


def test_buffers_go_with_their_writer(memory):
    """A writer that is closed holds none, whoever still holds the writer."""
    threads = threading.active_count()
    writer = FrameWriter(
        SegmentWriter(lambda number: memory.create(f"segment-{number}")),
        PageLogOptions(codec="zstd", frame_bytes=FRAME_BYTES),
        np.empty(0, FRAME),
    )
    number, buffer = writer.acquire()
    buffer[:] = text(1)
    writer.submit(number, buffer, FRAME_BYTES)
    number, buffer = writer.acquire()
    arena = buffer.obj
    writer.drain()
    writer.give_back(buffer)
    del buffer
    writer.close()
    # It is not referred to any more: a mapping that is cannot be closed.
    arena.close()
    assert threading.active_count() == threads


def test_as_many_scratch_buffers_as_threads(store, monkeypatch):
    """And not as many as segments."""
    made = []
    new_buffers = bulk.buffers

    def counted(count, size):
        made.append(threading.get_ident())
        return new_buffers(count, size)

    monkeypatch.setattr(bulk, "buffers", counted)
    options = PageLogOptions(
        codec="zstd", frame_bytes=FRAME_BYTES, segment_bytes=3 * bulk.BLOCK_BYTES
    )
    with store.begin("key", options) as writer:
        for number in range(60):
            writer.pages.run(TASK, number << 20, FRAME_BYTES // PAGE_BYTES, 4)
            feed(writer.pages, text(number))
        snapshot = writer.commit()
    assert len(snapshot.segments) >= 15
    assert 1 <= len(made) == len(set(made))
    assert store.verify(snapshot.id).findings == ()
