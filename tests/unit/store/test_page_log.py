"""The page log: what goes in comes out, whatever the sizes and policies."""

from __future__ import annotations

import os
import queue
import tempfile
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snaplib.errors import StoreFull, UsageError
from snaplib.store import PAGE_BYTES, PageLogOptions, Space, Store
from snaplib.store.balance import Balance
from snaplib.store.feed import Feed
from snaplib.store.framewriter import FrameWriter
from snaplib.store.index import FRAME
from snaplib.store.runs import RunSet
from snaplib.store.segments import SegmentWriter
from snaplib.store.workers import Workers
from snaplib.testing.snapshots import NOISE, feed
from snaplib.testing.snapshots import SAMPLE_TASK as TASK
from snaplib.testing.stores import FailingBackend, MemoryBackend

PAGES = [
    bytes(PAGE_BYTES),
    b"snap" * 1024,
    *(NOISE[at : at + 4096] for at in range(0, 40960, 4096)),
]

runs = st.lists(
    st.tuples(
        st.sampled_from([Space(1, 1), Space(1, 2), Space(2, 1 << 50)]),
        st.integers(0, 5),
        st.lists(st.integers(0, len(PAGES) - 1), min_size=1, max_size=20),
        st.integers(0, 7),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(
    runs,
    st.sampled_from(["auto", "zstd", "none"]),
    st.sampled_from([1, 3, 16]),
    st.integers(1, 3),
    st.integers(100, 20_000),
)
def test_round_trip(declared, codec, frame_pages, workers, step):
    """Entries and bytes come back exactly as they were given."""
    store = Store.over(MemoryBackend(), create=True)
    options = PageLogOptions(
        codec=codec,
        frame_bytes=frame_pages * PAGE_BYTES,
        workers=workers,
        segment_bytes=10 * PAGE_BYTES,
    )
    expected, ends = {}, {}
    with store.begin("key", options) as writer:
        for space, gap, content, flags in declared:
            vaddr = ends.get(space, 0x1000) + gap * PAGE_BYTES
            pages = len(content)
            ends[space] = vaddr + pages * PAGE_BYTES
            data = b"".join(PAGES[number] for number in content)
            expected.setdefault(space, []).append((vaddr, pages, flags, data))
            writer.pages.run(space, vaddr, pages, flags)
            feed(writer.pages, data, step)
        snapshot = writer.commit()
    assert store.verify(snapshot.id).findings == ()

    with store.read(snapshot.id) as reader, tempfile.TemporaryFile() as file:
        assert reader.pages.spaces() == sorted(expected)
        for space, entries in expected.items():
            assert reader.pages.entries(space).tolist() == [entry[:3] for entry in entries]
            joined = reader.pages.entries(space, coalesce=True)
            assert joined["pages"].sum() == sum(entry[1] for entry in entries)
            for vaddr, pages, _, data in entries:
                assert reader.pages.read(space, vaddr, pages) == data
                assert reader.pages.read(space, vaddr + (pages - 1) * 4096, 1) == data[-4096:]
            with pytest.raises(UsageError, match="not all"):
                reader.pages.read(space, ends[space], 1)
            file.seek(0)
            everything = b"".join(entry[3] for entry in entries)
            assert reader.pages.copy_to(space, file.fileno()) == len(everything)
            file.seek(0)
            assert file.read(len(everything)) == everything


def test_neighbours_are_joined_only_when_asked(memory_store):
    """Entries are CRIU's; coalesced, neighbours with the same flags are one."""
    with memory_store.begin("key") as writer:
        for vaddr, flags in ((0x1000, 4), (0x2000, 4), (0x3000, 6), (0x5000, 6)):
            writer.pages.run(TASK, vaddr, 1, flags)
            feed(writer.pages, PAGES[1])
        snapshot = writer.commit()
    with memory_store.read(snapshot.id) as reader:
        assert len(reader.pages.entries(TASK)) == 4
        assert reader.pages.entries(TASK, coalesce=True).tolist() == [
            (0x1000, 2, 4),
            (0x3000, 1, 6),
            (0x5000, 1, 6),
        ]


@pytest.mark.parametrize("codec", ["auto", "zstd", "none"])
def test_full_while_writing(memory, codec):
    """The error of a worker comes out at the caller, nothing hangs, and nothing is left."""
    store = Store.over(FailingBackend(memory, 500_000), create=True)
    threads = threading.active_count()
    options = PageLogOptions(codec=codec, frame_bytes=1 << 16)

    def take():
        with store.begin("key", options) as writer:
            for number in range(1000):
                writer.pages.run(TASK, number << 20, 40, 4)
                # Never the same: that would not be stored again.
                feed(writer.pages, NOISE[number:] + NOISE[:number])
            writer.commit()

    with pytest.raises(StoreFull):
        take()

    assert threading.active_count() == threads
    assert sorted(memory.objects) == ["snaplib-store.json"]


def test_abort_while_workers_work(memory_store, memory):
    """Leaving in the middle of a run stops the workers and leaves nothing."""
    threads = threading.active_count()
    with memory_store.begin("key") as writer:
        writer.pages.run(TASK, 0, 1 << 20, 4)
        for _ in range(20):
            feed(writer.pages, NOISE)

    assert threading.active_count() == threads
    assert sorted(memory.objects) == ["snaplib-store.json"]


def test_misuse_is_told(memory_store):
    """Mistakes in the order or the size of calls are errors, not damaged snapshots."""
    with memory_store.begin("key") as writer:
        with pytest.raises(UsageError, match="no bytes are due"):
            writer.pages.reserve(10)
        with pytest.raises(UsageError, match="whole pages"):
            writer.pages.run(TASK, 0x1001, 1, 4)
        with pytest.raises(UsageError, match="whole pages"):
            writer.pages.hole(TASK, 0x1000, 0, 4)
        writer.pages.run(TASK, 0x1000, 1, 4)
        with pytest.raises(UsageError, match="missing"):
            writer.pages.hole(TASK, 0x2000, 1, 4)
        with pytest.raises(UsageError, match="more bytes"):
            writer.pages.filled(4097)


def test_a_page_declared_twice_is_not_committed(memory_store, memory):
    """What contradicts itself does not become a snapshot."""
    with memory_store.begin("key") as writer:
        for _ in range(2):
            writer.pages.run(TASK, 0x1000, 1, 4)
            feed(writer.pages, PAGES[1])
        with pytest.raises(UsageError, match="overlaps"):
            writer.commit()
    assert sorted(memory.objects) == ["snaplib-store.json"]


def test_a_hole_that_is_not_filled_is_not_committed(memory_store, memory):
    """A snapshot holds every page it says there is."""
    with memory_store.begin("key") as writer:
        writer.pages.run(TASK, 0x1000, 1, 4)
        feed(writer.pages, PAGES[1])
        writer.pages.hole(TASK, 0x1000, 3, 4)
        with pytest.raises(UsageError, match="2 of the pages"):
            writer.commit()
    assert sorted(memory.objects) == ["snaplib-store.json"]


def test_balance():
    """Raw frames are for disks that are done with them before the codec would have come to them."""
    size = 1 << 20

    def has_time(balance, waiting=0, coding=3):
        return balance.disk_has_time(size, waiting_bytes=waiting * size, coding_bytes=coding * size)

    unknown = Balance(workers=1)
    assert has_time(unknown)
    assert not has_time(unknown, waiting=1), "one is enough to see how fast the disk is"
    fast, slow = Balance(workers=1), Balance(workers=1)
    for balance, write_s in ((fast, 0.0005), (slow, 0.008)):
        for _ in range(3):
            balance.compressed(size, 400 << 10, 0.0016)
            balance.written(size, 2 * write_s, at_once=2)
    assert [has_time(fast, waiting) for waiting in (0, 8, 9)] == [True, True, False]
    assert not has_time(fast, coding=0), "nobody waits for an idle codec"
    assert not has_time(slow)


def test_how_long_the_disk_will_be_busy():
    """With what waits for it, and with what the codec will leave."""
    balance = Balance(workers=1)
    assert balance.left_s(waiting_bytes=1, coding_bytes=1) is None
    balance.written(1000, 0.5, at_once=1)
    assert balance.left_s(waiting_bytes=2000, coding_bytes=1000) == pytest.approx(1.5)
    balance.compressed(1000, 200, 0.1)
    assert balance.left_s(waiting_bytes=2000, coding_bytes=1000) == pytest.approx(1.1)


class Gate:
    """Segments on a disk that stands still until it is told to go on."""

    def __init__(self):
        self.open = threading.Event()

    def append(self, _data):
        self.open.wait(20)
        return 0, 0

    def salvage(self):
        return set()


class Full:
    """Segments on a disk that has no room until it is told so."""

    def __init__(self):
        self.full = True

    def append(self, _data):
        if self.full:
            raise StoreFull("no room left")
        return 0, 0

    def salvage(self):
        return set()


def test_in_the_background_little_is_accepted_from_a_slow_disk():
    """What is on its way stands between a notice and the dump."""
    gate = Gate()
    options = PageLogOptions(frame_bytes=PAGE_BYTES, workers=1, codec="none")
    frames = FrameWriter(gate, options, np.zeros(0, FRAME))
    frames.set_background(background=True)

    def accepted():
        room = frames.try_acquire(lambda: True)
        if room is None:
            return False
        number, buffer = room
        buffer[:] = NOISE[:PAGE_BYTES]
        frames.submit(number, buffer, PAGE_BYTES)
        return True

    try:
        assert [accepted() for _ in range(4)] == [True, True, False, False]
        gate.open.set()
        frames.drain()
        assert accepted()
        frames.drain()
    finally:
        gate.open.set()
        frames.close()


def test_after_a_failure_nothing_is_thought_to_be_on_its_way():
    """Or nothing would be accepted any more in the background."""
    disk = Full()
    options = PageLogOptions(frame_bytes=PAGE_BYTES, workers=1, codec="zstd")
    frames = FrameWriter(disk, options, np.zeros(0, FRAME))
    frames.set_background(background=True)
    try:
        number, buffer = frames.acquire()
        buffer[:] = NOISE[:PAGE_BYTES]
        frames.submit(number, buffer, PAGE_BYTES)
        with pytest.raises(StoreFull):
            frames.drain()
        frames.salvage()
        disk.full = False
        for _ in range(4):
            room = frames.try_acquire(lambda: True)
            assert room is not None
            number, buffer = room
            buffer[:] = NOISE[:PAGE_BYTES]
            frames.submit(number, buffer, PAGE_BYTES)
            frames.drain()
    finally:
        frames.close()


def give(frames, count, stopped=None):
    """Give frames of one page each to a writer; returns their numbers."""
    numbers = []
    for _ in range(count):
        number, buffer = frames.acquire()
        buffer[:] = np.random.default_rng(number).bytes(PAGE_BYTES)
        frames.submit(number, buffer, PAGE_BYTES, stopped)
        numbers.append(number)
    return numbers


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_nobody_who_is_in_a_hurry_waits_for_a_disk_that_stands_still(codec):
    """What is on its way goes on beside what comes then, and all of it is stored in the end."""
    gate = Gate()
    options = PageLogOptions(frame_bytes=PAGE_BYTES, workers=1, codec=codec)
    frames = FrameWriter(gate, options, np.zeros(0, FRAME))
    try:
        # More than anybody takes.
        before = give(frames, 8, lambda: True)
        assert not frames.drain(lambda: True)
        frames.set_background(background=True)
        frames.set_background(background=False)
        now = give(frames, 2, lambda: True)
        assert not frames.frames()["pages"].any()
        gate.open.set()
        assert frames.drain()
        assert frames.frames()["pages"].tolist() == [1] * len(before + now)
        frames.set_background(background=True)
        give(frames, 1)
        assert frames.drain(lambda: False)
    finally:
        gate.open.set()
        frames.close()


def test_whether_a_disk_has_come_to_a_halt(monkeypatch):
    """It is told by what it has to do, and does not."""
    monkeypatch.setattr("snaplib.store.backlog._HALT_LEAST_S", 0.0)
    gate = Gate()
    options = PageLogOptions(frame_bytes=PAGE_BYTES, workers=1, codec="none")
    frames = FrameWriter(gate, options, np.zeros(0, FRAME))
    try:
        assert not frames.halted()
        give(frames, 1)
        end_s = time.monotonic() + 60
        while not frames.halted():
            assert time.monotonic() < end_s
        gate.open.set()
        frames.drain()
        assert not frames.halted()
    finally:
        gate.open.set()
        frames.close()


def test_what_is_gathered_when_nobody_takes_it():
    """Who is told to stop is not kept by a disk that stands still, and what was read is stored later."""
    gate = Gate()
    options = PageLogOptions(frame_bytes=PAGE_BYTES, workers=1, codec="none")
    frames = FrameWriter(gate, options, np.zeros(0, FRAME))
    feed = Feed(frames)
    read = []

    def read_one(room, some):
        room[:] = NOISE[:PAGE_BYTES]
        read.append(some)
        return some

    try:
        # Four are taken; the fifth is read, and then it is told to stop.
        tried = feed.gather(RunSet.of([0], [20]), read_one, lambda: len(read) > 4)
        assert tried.pages == len(read) == 5
        assert feed.flush(lambda: True).pages == 5
        gate.open.set()
        frames.drain()
        assert frames.frames()["pages"].tolist() == [1] * 5
    finally:
        gate.open.set()
        feed.close()
        frames.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be less nice than it was")
def test_who_is_in_a_hurry_gets_the_cpu_sooner():
    """What was begun in the background does not keep a dump waiting."""
    workers = Workers(1)
    go_on = threading.Event()

    def niceness():
        return [os.getpriority(os.PRIO_PROCESS, tid) for tid in threads]

    def threads_at_work():
        found = [queue.Queue(), queue.Queue()]
        for begin, one in zip((workers.code, workers.write), found, strict=True):
            begin(lambda one=one: (one.put(threading.get_native_id()), go_on.wait(60)))
        return [one.get(timeout=60) for one in found]

    try:
        own = os.getpriority(os.PRIO_PROCESS, 0)
        workers.set_background(background=True)
        threads = threads_at_work()
        assert niceness() == [min(19, own + 10), min(19, own + 5)]
        workers.set_background(background=False)
        assert niceness() == [min(19, own + 5), own]
        threads = threads_at_work()
        assert niceness() == [min(19, own + 5), own]
    finally:
        go_on.set()
        workers.close()


def test_memory_that_does_not_compress():
    """It is tried now and then, and always again once a try was worth it."""
    balance = Balance(workers=1)
    assert all(balance.worth_trying(frame) for frame in range(16))
    balance.compressed(1 << 20, 1 << 20, 0.001)
    assert [frame for frame in range(24) if balance.worth_trying(frame)] == [0, 8, 16]
    balance.compressed(1 << 20, 300 << 10, 0.001)
    assert all(balance.worth_trying(frame) for frame in range(16))


def test_what_comes_after_a_commit_goes_elsewhere(memory):
    """A segment that was made durable is complete, however small it is."""
    segments = SegmentWriter(lambda number: memory.create(f"segment-{number}"))
    assert segments.append(b"first") == (0, 0)
    segments.commit([0])
    assert segments.salvage() == {0}
    assert segments.append(b"second") == (1, 0)
    segments.commit([0, 1])
    assert memory.objects == {"segment-0": b"first", "segment-1": b"second"}
