"""Pages out of a process into a log, whatever can be read of them."""

from __future__ import annotations

from concurrent.futures import Future

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from snaplib.checkpoint.tracked import TrackedSink
from snaplib.kernel import ProcFs
from snaplib.store import PAGE_BYTES, PageLogOptions, RunSet, SnapshotWriter, Store
from snaplib.testing.stores import MemoryBackend
from snaplib.warm import FinalCopy
from snaplib.warm.copier import task_space
from snaplib.warm.reading import read_pages

BASE = 5 << 48


def content(page):
    """Return what a page of the fake process holds."""
    return np.full(PAGE_BYTES // 8, page + 1, np.uint64).tobytes()


class FakeMemory:
    """A process of 64 pages, some of which cannot be read, or only as a debugger reads."""

    def __init__(self, gone, hidden):
        self._gone = gone
        self._hidden = hidden

    def read(self, room, addresses, sizes):
        done = 0
        for address, size in zip(addresses.tolist(), sizes.tolist(), strict=True):
            for page in range(address // PAGE_BYTES, (address + size) // PAGE_BYTES):
                if page in self._gone or page in self._hidden:
                    return done
                room[done : done + PAGE_BYTES] = content(page)
                done += PAGE_BYTES
        return done

    def read_anyway(self, room, address):
        done = 0
        while done < len(room):
            page = (address + done) // PAGE_BYTES
            if page in self._gone:
                break
            room[done : done + PAGE_BYTES] = content(page)
            done += PAGE_BYTES
        return done


pages = st.sets(st.integers(0, 63))


@given(pages, pages, pages)
def test_what_is_read_is_what_is_told(wanted, gone, hidden):
    """Every page that is said to be there is, and those before a hole in a run are."""
    asked = RunSet.from_pages([BASE + page for page in sorted(wanted)])
    room = memoryview(bytearray(len(wanted) * PAGE_BYTES))
    got = read_pages(FakeMemory(gone, hidden), BASE, room, asked)
    told = [
        int(page) - BASE
        for begin, end in zip(got.begins, got.ends, strict=True)
        for page in range(int(begin), int(end))
    ]
    assert bytes(room[: len(told) * PAGE_BYTES]) == b"".join(content(page) for page in told)
    expected = []
    for page in sorted(wanted):
        follows_lost = page - 1 in wanted and page - 1 not in expected
        if page not in gone and not follows_lost:
            expected.append(page)
    assert told == expected


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(1, 30)), max_size=8),
    st.sampled_from([1, 3, 16]),
    st.integers(0, 40),
)
def test_gathered_pages_are_where_the_log_says(rows, frame_pages, patience):
    """Frames are filled across runs, a stop leaves whole pages, and what was tried is told."""
    store = Store.over(MemoryBackend(), create=True)
    options = PageLogOptions(frame_bytes=frame_pages * PAGE_BYTES, workers=1)
    space = task_space(7)
    with store.begin("key", options) as writer:
        log = writer.pages
        base = log.page_number(space, 0)
        wanted = RunSet.of(
            [base + page for page, _ in rows], [base + page + count for page, count in rows]
        )
        memory = FakeMemory(set(), set())
        left = patience
        feed = log.feed()

        def stopped():
            nonlocal left
            left -= 1
            return left < 0

        tried = feed.gather(
            wanted, lambda room, some: read_pages(memory, base, room, some), stopped
        )
        assert log.take(feed) == tried
        log.release(feed)
        assert len(tried - wanted) == 0
        if patience >= 40 and frame_pages == 16:
            assert tried == wanted
        for begin, end in zip(tried.begins.tolist(), tried.ends.tolist(), strict=True):
            log.hole(space, (begin - base) * PAGE_BYTES, end - begin, 4)
        snapshot = writer.commit()
    with store.read(snapshot.id) as reader:
        for begin, end in zip(tried.begins.tolist(), tried.ends.tolist(), strict=True):
            for page in range(begin - base, end - base):
                assert reader.pages.read(space, page * PAGE_BYTES, 1) == content(page)


@given(pages, pages, st.lists(st.tuples(st.integers(0, 50), st.integers(1, 14)), max_size=5))
def test_what_the_log_has_is_thrown_away(copied, changed, sent):
    """Of what CRIU sends the log keeps what it does not have, and all of it is declared."""
    store = Store.over(MemoryBackend(), create=True)
    space = task_space(7)
    spoken, at = [], 0
    for gap, count in sent:
        spoken.append((at + gap, count))
        at += gap + count
    with store.begin("key", PageLogOptions(frame_bytes=1 << 14, workers=1)) as writer:
        log = writer.pages
        base = log.page_number(space, 0)
        numbers = RunSet.from_pages([base + page for page in sorted(copied - changed)])
        feed = log.feed()
        memory = FakeMemory(set(), set())
        feed.gather(numbers, lambda room, some: read_pages(memory, base, room, some), bool)
        log.take(feed)
        log.release(feed)
        coming: Future[SnapshotWriter] = Future()
        coming.set_result(writer)
        sink = TrackedSink(coming)
        sink.final = FinalCopy(
            lambda: log, ProcFs("/nowhere"), {}, lambda: (numbers - numbers, numbers - numbers)
        )
        for first, count in spoken:
            sink.run(space, first * PAGE_BYTES, count, 4)
            data = memoryview(b"".join(content(page) for page in range(first, first + count)))
            while data:
                room = sink.reserve(min(5000, len(data)))
                room[:] = data[: len(room)]
                data = data[len(room) :]
                sink.filled(len(room))
        assert sink.final.finish(10) == 0
        kept = {page for first, count in spoken for page in range(first, first + count)}
        assert sink.kept_pages == len(kept - (copied - changed))
        snapshot = writer.commit()
    assert snapshot.pages == len(kept)
    with store.read(snapshot.id) as reader:
        for page in kept:
            assert reader.pages.read(space, page * PAGE_BYTES, 1) == content(page)
