"""How much a writer holds does not depend on how much it writes, nor on how many CPUs there are."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from snaplib.store import PAGE_BYTES, PageLogOptions, budget, bulk
from snaplib.store.blocks import BLOCK_PAGES
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


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 5, 8, 9, 16, 64, 1024])
def test_the_budget(monkeypatch, memory, cpus):
    """What frames and what comes of them take is bounded, and that is what a writer has."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cpus)))
    options = PageLogOptions()
    assert options.workers == min(6, max(1, cpus - 1))
    assert budget.held_bytes(options.workers, options.frame_bytes) <= 56 << 20
    assert options.frame_bytes >= 1 << 20
    assert options.frame_bytes % (BLOCK_PAGES * PAGE_BYTES) == 0
    segments = SegmentWriter(lambda number: memory.create(f"segment-{number}"))
    writer = FrameWriter(segments, options, np.empty(0, FRAME))
    try:
        held = sum(len(buffer) for buffer in writer._buffers)
        coding = writer._most_coding * options.frame_bytes
        assert held + coding == budget.held_bytes(options.workers, options.frame_bytes)
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("wanted", "frame_mib", "threads"), [(2, 4, 2), (8, 4, 8), (8, 16, 1), (8, 64, 1), (2, 64, 1)]
)
def test_frames_that_are_read(wanted, frame_mib, threads):
    """Of large frames, which somebody else may have written, fewer are read at once."""
    assert budget.reading_threads(wanted, 2 * frame_mib << 20, 2) == threads


_WRITE = """
import os, sys
os.sched_getaffinity = lambda _pid: set(range(64))
os.cpu_count = lambda: 64
import random
from snaplib.store import PageLogOptions, Store
from snaplib.testing.snapshots import SAMPLE_TASK, feed
half = 1 << 15
noise = random.Random(1).randbytes(1 << 22)
data = b"".join(noise[at : at + half] + b"text" * (half // 4) for at in range(0, len(noise), half))
with Store.open(sys.argv[1]).begin("key", PageLogOptions(codec="zstd")) as writer:
    assert writer.pages._frames._options.workers == 6
    for turn in range(24):
        writer.pages.run(SAMPLE_TASK, turn << 32, len(data) // 4096, 4)
        feed(writer.pages, data[turn << 12 :] + data[: turn << 12], 1 << 20)
    writer.commit()
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


def test_with_64_cpus(tmp_path):
    """A process that thinks it has so many stays as small as it is to be."""
    told = subprocess.run(
        [sys.executable, "-c", _WRITE, tmp_path / "store"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(told.stdout) * 1024 < 200e6
