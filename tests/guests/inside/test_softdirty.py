"""Soft-dirty tracking against a program that does to its memory what it is told, and against a copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from snaplib.task import Task
from snaplib.track import PAGE_BYTES, Unknown, Untracked

pytestmark = pytest.mark.require("soft_dirty")

PAGES = 64
ALL = set(range(PAGES))
WRITTEN = {5, 6, 7, 11, 30, 31, 47}
WORDS = ("store", "memset", "read", "recv", "remote", "thread")
HUGE_PAGES_FILE = Path("/proc/sys/vm/nr_hugepages")


def write(victim, word: str, address: int, pages=WRITTEN) -> None:
    for page in sorted(pages):
        victim(word, address, page, 1)


@pytest.mark.parametrize("kind", ["anon", "heap", "globals", "memfd-private", "file-private"])
def test_exactly_what_was_written_is_dirty(victim, track, dirty, kind):
    address = victim("map", kind, PAGES)
    victim("store", address, 0, PAGES)
    tracker = track(victim.pid)
    tracker.scan()
    for word in WORDS:
        write(victim, word, address)
        found = dirty(tracker.scan(), victim.pid, address, PAGES)
        # The stack of a new thread may become one mapping with ours, and the mark of a new mapping is the whole one's.
        assert found == WRITTEN or (word == "thread" and found == ALL), word
        assert dirty(tracker.scan(), victim.pid, address, PAGES) == set(), word


@pytest.mark.parametrize("word", WORDS)
def test_transparent_huge_pages_are_dirty_where_they_were_written(victim, track, dirty, word):
    address = victim("map", "huge-pages", 2048)
    tracker = track(victim.pid)
    assert dirty(tracker.scan(), victim.pid, address, 2048) == set()
    victim(word, address, 700, 1)
    # The mark is the huge page's where it is mapped as one.
    assert dirty(tracker.scan(), victim.pid, address, 2048) in ({700}, set(range(512, 1024)))


@pytest.mark.parametrize("kind", ["shared", "memfd", "file-shared"])
def test_shared_memory_is_never_clean(victim, track, dirty, kind):
    address = victim("map", kind, PAGES)
    victim("store", address, 0, PAGES)
    tracker = track(victim.pid)
    for _ in range(2):
        assert dirty(tracker.scan(), victim.pid, address, PAGES) == ALL


def test_hugetlb_pages_are_never_clean(victim, track, dirty):
    before = HUGE_PAGES_FILE.read_text()
    HUGE_PAGES_FILE.write_text("4")
    try:
        address = victim("map", "hugetlb", 1024)
        victim("store", address, 0, 1024)
        tracker = track(victim.pid)
        tracker.scan()
        for _ in range(2):
            victim("store", address, 700, 1)
            scan = tracker.scan()
            assert dirty(scan, victim.pid, address, 1024) == set(range(1024))
        runs = scan.process(victim.pid).untracked
        why = runs["why"][
            (runs["start"] >= address) & (runs["start"] < address + 1024 * PAGE_BYTES)
        ]
        assert set(why.tolist()) == {Unknown.REFUSED}
    finally:
        HUGE_PAGES_FILE.write_text(before)


@pytest.mark.parametrize("kind", ["anon", "file-private"])
def test_pages_first_touched_after_arming_are_dirty(victim, track, dirty, kind):
    address = victim("map", kind, PAGES)
    tracker = track(victim.pid)
    write(victim, "store", address)
    assert dirty(tracker.scan(), victim.pid, address, PAGES) == WRITTEN


def test_a_look_without_rearming_changes_nothing(victim, track, dirty):
    address = victim("map", "anon", PAGES)
    victim("store", address, 0, PAGES)
    tracker = track(victim.pid)
    write(victim, "store", address)
    for _ in range(3):
        scan = tracker.scan(rearm=False)
        assert scan.frozen_s == 0
        assert dirty(scan, victim.pid, address, PAGES) == WRITTEN
    assert dirty(tracker.scan(), victim.pid, address, PAGES) == WRITTEN
    assert dirty(tracker.scan(), victim.pid, address, PAGES) == set()


def test_dropped_pages_are_dirty_when_they_are_written_again(victim, track, dirty):
    address = victim("map", "anon", PAGES)
    victim("store", address, 0, PAGES)
    tracker = track(victim.pid)
    victim("dontneed", address, 0, 20)
    victim("store", address, 3, 2)
    assert dirty(tracker.scan(), victim.pid, address, PAGES) == {3, 4}


def test_dropped_pages_that_are_read_again_are_dirty(victim, track, dirty):
    address = victim("map", "anon", PAGES)
    victim("store", address, 0, PAGES)
    tracker = track(victim.pid)
    victim("dontneed", address, 0, 20)
    victim("load", address, 10, 3)
    assert dirty(tracker.scan(), victim.pid, address, PAGES) == {10, 11, 12}


def test_protection_against_writing_and_back_is_followed(victim, track, dirty):
    address = victim("map", "anon", PAGES)
    victim("store", address, 0, PAGES)
    tracker = track(victim.pid)
    victim("protect", address, 10, 30)
    tracker.scan()
    victim("unprotect", address, 10, 30)
    write(victim, "store", address)
    assert dirty(tracker.scan(), victim.pid, address, PAGES) == WRITTEN


@pytest.mark.parametrize("kind", ["anon", "file-private"])
def test_a_new_mapping_is_dirty_and_then_tracked(victim, track, dirty, kind):
    tracker = track(victim.pid)
    address = victim("map", kind, PAGES)
    victim("store", address, 0, 20)
    assert dirty(tracker.scan(), victim.pid, address, PAGES) >= set(range(20))
    write(victim, "store", address)
    assert dirty(tracker.scan(), victim.pid, address, PAGES) >= WRITTEN
    write(victim, "store", address)
    assert dirty(tracker.scan(), victim.pid, address, PAGES) == WRITTEN


def test_the_growing_heap_is_tracked(victim, track, dirty):
    tracker = track(victim.pid)
    for _ in range(3):
        address = victim("map", "heap", PAGES)
        victim("store", address, 0, PAGES)
        assert dirty(tracker.scan(), victim.pid, address, PAGES) == ALL
        write(victim, "store", address)
        assert dirty(tracker.scan(), victim.pid, address, PAGES) == WRITTEN


def test_another_mapping_at_the_same_address_is_dirty(victim, track, dirty):
    address = victim("map", "anon", PAGES)
    victim("store", address, 0, PAGES)
    tracker = track(victim.pid)
    victim("unmap", address, 0, PAGES)
    assert victim("map", "anon", PAGES, address) == address
    write(victim, "store", address)
    assert dirty(tracker.scan(), victim.pid, address, PAGES) == WRITTEN
    write(victim, "store", address, {1})
    assert dirty(tracker.scan(), victim.pid, address, PAGES) == {1}


@pytest.mark.parametrize("beside", [False, True])
def test_a_moved_mapping_is_dirty(victim, track, dirty, beside):
    room = victim("map", "anon", 4 * PAGES)
    victim("unmap", room, 0, 4 * PAGES)
    size = PAGES * PAGE_BYTES
    left = victim("map", "anon", PAGES, room)
    victim("store", left, 0, PAGES)
    right = victim("map", "anon", PAGES, room + 2 * size)
    victim("store", right, 0, PAGES)
    tracker = track(victim.pid)
    tracker.scan()
    # Moved next to another it becomes one mapping with it.
    moved = victim("move", right, room + size if beside else 0, PAGES)
    scan = tracker.scan()
    assert dirty(scan, victim.pid, moved, PAGES) == ALL
    for _ in range(2):
        for address in (left, moved):
            write(victim, "store", address)
        scan = tracker.scan()
        assert dirty(scan, victim.pid, left, PAGES) == WRITTEN
        assert dirty(scan, victim.pid, moved, PAGES) == WRITTEN


def test_page_tables_that_are_moved_whole_are_dirty(victim, track, dirty):
    # The kernel marks what it moves page by page, but not what it moves by the page table.
    first, second, room = (victim("map", "aligned", 1024) for _ in range(3))
    for address in (first, second):
        victim("store", address, 0, 1024)
    victim("unmap", room, 0, 1024)
    tracker = track(victim.pid)
    assert dirty(tracker.scan(), victim.pid, first, 1024) == set()
    assert victim("move", first, room, 1024) == room
    assert victim("move", second, first, 1024) == first
    scan = tracker.scan()
    assert dirty(scan, victim.pid, room, 1024) == set(range(1024))
    assert dirty(scan, victim.pid, first, 1024) == set(range(1024))
    scan = tracker.scan()
    assert dirty(scan, victim.pid, room, 1024) | dirty(scan, victim.pid, first, 1024) == set()


def test_huge_pages_that_are_dropped_and_read_again_are_dirty(victim, track, dirty):
    address = victim("map", "huge-pages", 1024)
    tracker = track(victim.pid)
    victim("dontneed", address, 0, 1024)
    victim("load", address, 700, 1)
    found = dirty(tracker.scan(), victim.pid, address, 1024)
    assert found in ({700}, set(range(512, 1024)))


def test_a_child_is_new_and_then_tracked(victim, track, dirty):
    address = victim("map", "anon", PAGES)
    victim("store", address, 0, PAGES)
    tracker = track(victim.pid)
    child = victim("fork", address, 20, 3)
    write(victim, "store", address)
    scan = tracker.scan()
    assert dirty(scan, victim.pid, address, PAGES) == WRITTEN
    assert set(scan.process(child).untracked["why"].tolist()) == {Unknown.PROCESS}
    assert dirty(scan, child, address, PAGES) == ALL
    scan = tracker.scan()
    assert dirty(scan, child, address, PAGES) == set()
    victim("reap", child)
    assert [process.pid for process in tracker.scan().processes] == [victim.pid]


def test_a_child_with_the_memory_of_its_parent_hides_no_writes(victim, track, dirty):
    address = victim("map", "anon", PAGES)
    victim("store", address, 0, PAGES)
    tracker = track(victim.pid)
    child = victim("borrow")
    try:
        for _ in range(3):
            write(victim, "store", address)
            scan = tracker.scan()
            assert dirty(scan, victim.pid, address, PAGES) == WRITTEN
    finally:
        victim("reap", child)


def test_another_program_in_the_same_process_is_new(victim, track, dirty):
    tracker = track(victim.pid)
    victim("exec")
    address = victim("map", "anon", PAGES)
    victim("store", address, 0, PAGES)
    assert dirty(tracker.scan(), victim.pid, address, PAGES) == ALL
    write(victim, "store", address)
    assert dirty(tracker.scan(), victim.pid, address, PAGES) == WRITTEN


def test_what_holds_nothing_is_not_counted_where_nothing_is_tracked(victim, dirty):
    address = victim("map", "anon", 1 << 17)
    victim("store", address, 3, 5)
    with Task.attach(victim.pid) as task, Untracked(task) as tracker:
        tracker.arm()
        assert dirty(tracker.scan(), victim.pid, address, 1 << 17) == {3, 4, 5, 6, 7}
