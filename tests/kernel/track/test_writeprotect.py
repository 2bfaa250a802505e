"""Write-protect tracking against a program that does to its memory what it is told."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import attrs
import pytest

from snaplib.kernel.pagemap import Pagemap
from snaplib.task import Task
from snaplib.track import (
    PAGE_BYTES,
    Basis,
    CannotTrack,
    MemoryKind,
    Unknown,
    Untracked,
    WriteProtect,
    open_tracker,
)
from snaplib.track.survey import Survey

PAGES = 64
ALL = set(range(PAGES))
#: Prime in number, apart and together.
WRITTEN = {5, 6, 7, 11, 30, 31, 47}

KINDS = {
    "anon": MemoryKind.PRIVATE,
    "heap": MemoryKind.PRIVATE,
    "globals": MemoryKind.PRIVATE_FILE,
    "memfd-private": MemoryKind.PRIVATE_FILE,
    "file-private": MemoryKind.PRIVATE_FILE,
    "shared": MemoryKind.SHARED,
    "memfd": MemoryKind.SHARED,
    "file-shared": MemoryKind.SHARED_FILE,
    "huge-pages": MemoryKind.PRIVATE,
}


def write(victim, word: str, address: int, pages=WRITTEN) -> None:
    for page in sorted(pages):
        victim(word, address, page, 1)


def protected_mappings(pid: int) -> list[str]:
    """Return the mappings that a userfaultfd protects, as smaps tells."""
    content = Path(f"/proc/{pid}/smaps").read_text()
    return re.findall(r"^VmFlags:.* uw .*$", content, re.MULTILINE)


@pytest.mark.parametrize("kind", KINDS)
def test_exactly_what_was_written_is_dirty(victim, track, dirty, kind):
    address = victim("map", kind, PAGES)
    victim("store", address, 0, PAGES)
    tracker = track(victim.pid)
    tracker.scan()
    for word in ("store", "memset", "read", "recv", "remote", "thread"):
        write(victim, word, address)
        scan = tracker.scan()
        assert dirty(scan, victim.pid, address, PAGES) == WRITTEN, word
        assert dirty(tracker.scan(), victim.pid, address, PAGES) == set(), word
    runs = scan.process(victim.pid).runs
    kinds = {int(run["kind"]) for run in runs if address <= run["start"] < address + PAGES * 4096}
    assert kinds == {KINDS[kind]}


@pytest.mark.parametrize("kind", ["anon", "shared", "memfd", "file-private"])
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
    new = victim("map", "shared", PAGES)
    write(victim, "store", new)
    for _ in range(3):
        scan = tracker.scan(rearm=False)
        assert scan.frozen_s == 0
        assert dirty(scan, victim.pid, address, PAGES) == WRITTEN
        assert dirty(scan, victim.pid, new, PAGES) == ALL
    assert dirty(tracker.scan(), victim.pid, address, PAGES) == WRITTEN
    assert dirty(tracker.scan(), victim.pid, address, PAGES) == set()


def test_dropped_pages_are_dirty_when_they_are_touched_again(victim, track, dirty):
    address = victim("map", "anon", PAGES)
    victim("store", address, 0, PAGES)
    tracker = track(victim.pid)
    victim("dontneed", address, 0, 20)
    victim("store", address, 3, 2)
    victim("load", address, 10, 3)
    scan = tracker.scan()
    assert dirty(scan, victim.pid, address, PAGES) == {3, 4, 10, 11, 12}
    assert scan.process(victim.pid).zero_pages == 3


def test_protection_against_writing_and_back_is_followed(victim, track, dirty):
    address = victim("map", "anon", PAGES)
    victim("store", address, 0, PAGES)
    tracker = track(victim.pid)
    victim("protect", address, 10, 30)
    tracker.scan()
    victim("unprotect", address, 10, 30)
    write(victim, "store", address)
    assert dirty(tracker.scan(), victim.pid, address, PAGES) == WRITTEN


@pytest.mark.parametrize("kind", ["anon", "memfd", "file-private"])
def test_a_new_mapping_is_dirty_and_then_tracked(victim, track, dirty, kind):
    tracker = track(victim.pid)
    address = victim("map", kind, PAGES)
    victim("store", address, 0, 20)
    scan = tracker.scan()
    assert dirty(scan, victim.pid, address, PAGES) >= set(range(20))
    assert scan.frozen_s > 0
    assert dirty(tracker.scan(), victim.pid, address, PAGES) == set()
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


def test_a_moved_mapping_is_dirty(victim, track, dirty):
    address = victim("map", "anon", PAGES)
    victim("store", address, 0, PAGES)
    tracker = track(victim.pid)
    moved = victim("move", address, 0, PAGES)
    assert moved != address
    assert dirty(tracker.scan(), victim.pid, moved, PAGES) == ALL
    write(victim, "store", moved)
    assert dirty(tracker.scan(), victim.pid, moved, PAGES) == WRITTEN


@pytest.mark.parametrize(
    "kind", ["anon", "file-private", "memfd-private", "shared", "memfd", "file-shared"]
)
@pytest.mark.parametrize("touched", ["all", "some", "none"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_mapping_protected_in_part_stays_one(victim, track, kind, touched, when):
    # Were it registered in part, the parts could never be one again, and mremap(2), which moves
    # only what is one, would fail in the task.
    if when == "before":
        tracker = track(victim.pid)
    address = victim("map", kind, PAGES)
    victim("store", address, 0, {"all": PAGES, "some": 3, "none": 0}[touched])
    victim("protect", address, 10, 30)
    if when == "after":
        tracker = track(victim.pid)
    tracker.scan()
    victim("unprotect", address, 10, 30)
    assert victim("move", address, 0, PAGES) != address


def test_nothing_is_registered_once_the_task_runs_again(victim, track, dirty, monkeypatch):
    tracker = track(victim.pid)
    address = victim("map", "memfd", PAGES)
    victim("store", address, 0, PAGES)
    frozen = Task.frozen

    @contextlib.contextmanager
    def late(task, deadline_s):
        with frozen(task, deadline_s) as stopped:
            yield attrs.evolve(stopped, deadline=time.monotonic())

    registered = protected_mappings(victim.pid)
    with monkeypatch.context() as patched:
        patched.setattr(Task, "frozen", late)
        scan = tracker.scan()
    assert protected_mappings(victim.pid) == registered
    assert dirty(scan, victim.pid, address, PAGES) == ALL
    assert dirty(tracker.scan(), victim.pid, address, PAGES) == ALL
    assert dirty(tracker.scan(), victim.pid, address, PAGES) == set()


def test_stale_protection_bits_hide_no_writes(victim, track, dirty):
    # A mapping moved next to another merges with it; both lose their registration, but pages of
    # the neighbour keep the bit that says they were not written, even when they are.
    room = victim("map", "anon", 4 * PAGES)
    victim("unmap", room, 0, 4 * PAGES)
    size = PAGES * PAGE_BYTES
    left = victim("map", "anon", PAGES, room)
    victim("store", left, 0, PAGES)
    right = victim("map", "anon", PAGES, room + 2 * size)
    victim("load", right, 0, PAGES)
    tracker = track(victim.pid)
    tracker.scan()
    moved = victim("move", right, room + size, PAGES)
    for _ in range(3):
        for address in (left, moved):
            write(victim, "store", address)
        scan = tracker.scan()
        assert dirty(scan, victim.pid, left, PAGES) >= WRITTEN
        assert dirty(scan, victim.pid, moved, PAGES) >= WRITTEN


def test_a_child_is_new_and_then_tracked(victim, track, dirty):
    address = victim("map", "anon", PAGES)
    victim("store", address, 0, PAGES)
    tracker = track(victim.pid)
    child = victim("fork", address, 20, 3)
    write(victim, "store", address)
    scan = tracker.scan()
    assert dirty(scan, victim.pid, address, PAGES) == WRITTEN
    # Not worth arming yet: most children end soon.
    assert set(scan.process(child).untracked["why"].tolist()) == {Unknown.PROCESS}
    assert dirty(scan, child, address, PAGES) == ALL
    scan = tracker.scan()
    assert scan.process(child).untracked_pages == 0
    assert dirty(scan, child, address, PAGES) == ALL
    scan = tracker.scan()
    assert {process.pid for process in scan.processes} == {victim.pid, child}
    assert dirty(scan, child, address, PAGES) == set()
    assert scan.process(child).complete
    victim("reap", child)
    assert [process.pid for process in tracker.scan().processes] == [victim.pid]


def test_a_child_with_the_memory_of_its_parent_is_not_counted_twice(victim, track, dirty):
    address = victim("map", "anon", PAGES)
    victim("store", address, 0, PAGES)
    tracker = track(victim.pid)
    child = victim("borrow")
    try:
        for _ in range(3):
            write(victim, "store", address)
            scan = tracker.scan()
            assert dirty(scan, victim.pid, address, PAGES) == WRITTEN
            assert scan.process(child).dirty.size == 0
            assert str(victim.pid) in scan.process(child).detail
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


def test_what_the_kernel_does_not_track_is_never_clean(victim, track, dirty):
    address = victim("map", "droppable", PAGES)
    victim("store", address, 0, PAGES)
    tracker = track(victim.pid)
    untracked = tracker.scan().process(victim.pid).untracked
    if address not in untracked["start"]:
        # Linux 6.12 looks whether memory is droppable when it has already left that bit out, and protects it.
        write(victim, "store", address)
        assert dirty(tracker.scan(), victim.pid, address, PAGES) == WRITTEN
        return
    for _ in range(2):
        untracked = tracker.scan().process(victim.pid).untracked
        run = untracked[untracked["start"] == address]
        assert run["pages"].tolist() == [PAGES]
        assert run["why"].tolist() == [Unknown.REFUSED]


def test_a_memfd_written_through_its_descriptor_is_never_clean(victim, track, dirty):
    address = victim("map", "memfd-open", PAGES)
    victim("store", address, 0, PAGES)
    tracker = track(victim.pid)
    time.sleep(0.05)
    tracker.scan()
    assert dirty(tracker.scan(), victim.pid, address, PAGES) == set()
    victim("pwrite", 0, 17)
    victim("close")
    scan = tracker.scan()
    assert dirty(scan, victim.pid, address, PAGES) == ALL
    assert set(scan.process(victim.pid).untracked["why"].tolist()) == {Unknown.FILE_WRITTEN}
    # A look so soon after a write cannot exclude another of the very same time.
    time.sleep(0.05)
    tracker.scan()
    assert dirty(tracker.scan(), victim.pid, address, PAGES) == set()
    # Nobody has it open any more.
    write(victim, "store", address)
    assert dirty(tracker.scan(), victim.pid, address, PAGES) == WRITTEN


def test_a_process_whose_scan_fails_is_dirty_wholly(victim, track, dirty, monkeypatch):
    address = victim("map", "anon", PAGES)
    victim("store", address, 0, PAGES)
    tracker = track(victim.pid)
    scan_pages = Pagemap.scan

    def failing(self, start, end, **options):
        if start <= address < end and options.get("protect"):
            raise OSError(errno.EIO, "made up")
        return scan_pages(self, start, end, **options)

    monkeypatch.setattr(Pagemap, "scan", failing)
    scan = tracker.scan()
    assert dirty(scan, victim.pid, address, PAGES) == ALL
    assert "made up" in scan.process(victim.pid).detail
    assert protected_mappings(victim.pid) == []


def test_what_an_interrupted_scan_armed_is_dirty_in_the_next(victim, track, dirty, monkeypatch):
    address = victim("map", "anon", PAGES)
    victim("store", address, 0, PAGES)
    tracker = track(victim.pid)
    write(victim, "store", address)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Survey, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tracker.scan()
    assert dirty(tracker.scan(), victim.pid, address, PAGES) == ALL
    assert dirty(tracker.scan(), victim.pid, address, PAGES) == set()


def test_a_task_that_cannot_be_frozen_is_still_tracked(victim, track, dirty, monkeypatch):
    address = victim("map", "anon", PAGES)
    victim("store", address, 0, PAGES)
    tracker = track(victim.pid)

    def refuse(*_):
        raise TimeoutError

    new = victim("map", "memfd-private", PAGES)
    victim("store", new, 0, PAGES)
    write(victim, "store", address)
    with monkeypatch.context() as patched:
        patched.setattr(Task, "frozen", refuse)
        for expected in (WRITTEN, set()):
            scan = tracker.scan()
            assert dirty(scan, victim.pid, address, PAGES) == expected
            assert dirty(scan, victim.pid, new, PAGES) == ALL
        untracked = scan.process(victim.pid).untracked
        assert set(untracked["why"].tolist()) == {Unknown.UNREGISTERED}
    tracker.scan()
    assert dirty(tracker.scan(), victim.pid, new, PAGES) == set()


def test_nothing_stays_behind(victim, track):
    address = victim("map", "anon", PAGES)
    victim("store", address, 0, PAGES)
    before = len(list(Path(f"/proc/{victim.pid}/fd").iterdir()))
    tracker = track(victim.pid)
    assert protected_mappings(victim.pid)
    assert len(list(Path(f"/proc/{victim.pid}/fd").iterdir())) == before
    tracker.close()
    tracker.close()
    assert protected_mappings(victim.pid) == []
    victim("store", address, 0, PAGES)


def test_huge_pages_come_back(victim, track):
    address = victim("map", "huge-pages", 2048)

    def huge_kib() -> int:
        content = Path(f"/proc/{victim.pid}/smaps_rollup").read_text()
        return int(re.search(r"AnonHugePages:\s+(\d+)", content)[1])

    before = huge_kib()
    if not before:
        pytest.skip("this machine gives no transparent huge pages")
    tracker = track(victim.pid)
    victim("store", address, 0, 2048)
    assert huge_kib() < before
    tracker.close()
    assert huge_kib() == before


def test_a_second_tracker_is_refused(victim, track):
    track(victim.pid)
    with Task.attach(victim.pid) as task:
        with pytest.raises(CannotTrack, match="another tracker"):
            WriteProtect(task)
        second = open_tracker(task)
        assert isinstance(second, Untracked)
        assert "another tracker" in second.reasons[0]


def test_a_traced_process_is_left_alone(victim, compiled):
    command = [compiled("tracer"), str(victim.pid)]
    tracer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert tracer.stdout.readline() == "traced\n"
        with Task.attach(victim.pid) as task, open_tracker(task) as tracker:
            assert tracker.basis is Basis.NONE
            assert f"traced by pid {tracer.pid}" in tracker.reasons[0]
    finally:
        tracer.kill()
        tracer.wait()
        tracer.stdout.close()
    assert victim("peek", victim("map", "anon", 1), 0, 1) == 0


TRACKING = """
import sys, time
from snaplib.task import Task
from snaplib.track import WriteProtect
task = Task.attach(int(sys.argv[1]))
tracker = WriteProtect(task, freeze_deadline_s=30.0)
tracker.arm()
print("armed", flush=True)
while True:
    tracker.scan()
"""


@pytest.mark.parametrize("after_ms", [0, 1, 7, 23, 60, 90, 120, 200])
def test_killing_the_tracker_does_no_harm(victim, dirty, after_ms):
    address = victim("map", "anon", PAGES)
    victim("store", address, 0, PAGES)
    command = [sys.executable, "-c", TRACKING, str(victim.pid)]
    tracker = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    if after_ms >= 100:
        tracker.stdout.readline()
    time.sleep(after_ms / 1000)
    os.killpg(tracker.pid, signal.SIGKILL)
    tracker.wait()
    tracker.stdout.close()
    # The helper processes end by themselves.
    deadline = time.monotonic() + 30
    while protected_mappings(victim.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert protected_mappings(victim.pid) == []
    victim("store", address, 0, PAGES)
    assert Path(f"/proc/{victim.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "SR"
