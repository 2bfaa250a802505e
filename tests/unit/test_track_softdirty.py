"""Soft-dirty tracking on a made-up /proc, as kernels that have the bits show it."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import numpy as np
import pytest

from snaplib.kernel.pagemap import Pagemap
from snaplib.task import Frozen
from snaplib.testing.procfs import FakeProc
from snaplib.track import CannotTrack, SoftDirty, Unknown
from snaplib.track.runs import PAGE_BYTES

PRESENT, SWAPPED, OF_FILE, MARKED = (1 << bit for bit in (63, 62, 61, 55))

MAPS = """\
00010000-00014000 rw-p 00000000 00:00 0
00020000-00022000 rw-p 00000000 08:01 17 /data/x
00030000-00032000 rw-s 00000000 00:01 9 /dev/zero (deleted)
"""


class FakeTask:
    """A task of one process in a made-up /proc."""

    def __init__(self, root: Path) -> None:
        self.pid = 23
        fake = FakeProc(root)
        fake.add(23, maps=MAPS)
        self.procfs = fake.procfs
        self.folder = root / "23"
        (self.folder / "clear_refs").touch()
        self.pages = np.zeros(0x40, np.uint64)
        self.freezes = 0

    def members(self):
        return (self,)

    @contextlib.contextmanager
    def frozen(self, deadline_s):
        self.freezes += 1
        yield Frozen("stop", time.monotonic() + deadline_s)

    def show(self, pages: dict[int, int]) -> None:
        self.pages[:] = 0
        for page, bits in pages.items():
            # In a frame of its own, unless told.
            self.pages[page] = bits if bits & 0xFFF else bits | 0x1000 + page
        self._write()

    def show_frame(self, page: int, frame: int) -> None:
        self.pages[page] = PRESENT | frame
        self._write()

    def _write(self) -> None:
        (self.folder / "pagemap").write_bytes(self.pages.tobytes())


@pytest.fixture
def task(tmp_path):
    return FakeTask(tmp_path)


def test_marked_pages_are_dirty(task):
    tracker = SoftDirty(task, supported=lambda: True)
    there = {0x10: PRESENT, 0x11: PRESENT, 0x12: SWAPPED, 0x20: PRESENT | OF_FILE, 0x21: PRESENT}
    task.show(there)
    tracker.arm()
    assert (task.folder / "clear_refs").read_text() == "4"
    task.show(
        {
            0x10: PRESENT,
            0x11: PRESENT | MARKED,
            0x12: SWAPPED | MARKED,
            0x13: MARKED,
            0x20: PRESENT | OF_FILE | MARKED,
            0x21: PRESENT | MARKED,
        }
    )
    scan = tracker.scan()
    process = scan.process(23)
    runs = [(int(run["start"]) // PAGE_BYTES, int(run["pages"])) for run in process.runs]
    assert runs == [(0x11, 2), (0x21, 1)]
    assert scan.still
    assert task.freezes == 2


def test_a_page_that_is_another_one_is_dirty(task):
    tracker = SoftDirty(task, supported=lambda: True)
    there = dict.fromkeys(range(0x10, 0x14), PRESENT)
    task.show({**there, 0x13: SWAPPED})
    tracker.arm()
    # Moved here with its whole page table; come out of swap; of a frame that is not told.
    task.show({**there, 0x11: PRESENT | 0x77, 0x20: PRESENT | 0x78})
    task.show_frame(0x12, 0)
    scan = tracker.scan()
    runs = [(int(run["start"]) // PAGE_BYTES, int(run["pages"])) for run in scan.process(23).runs]
    assert runs == [(0x11, 3), (0x20, 1)]
    assert tracker.scan().process(23).runs["start"].tolist() == [0x12 * PAGE_BYTES]


def test_what_ran_on_while_it_was_unmarked_is_dirty(task, monkeypatch):
    tracker = SoftDirty(task, supported=lambda: True)
    task.show({0x10: PRESENT, 0x11: PRESENT})
    tracker.arm()
    with monkeypatch.context() as patched:
        patched.setattr(FakeTask, "frozen", too_late)
        scan = tracker.scan()
    assert not scan.still
    assert scan.process(23).dirty["pages"].sum() == 4
    assert tracker.scan().process(23).dirty["pages"].sum() == 4
    assert tracker.scan().process(23).runs.size == 0


def test_a_task_that_cannot_be_stopped_is_looked_at(task, monkeypatch):
    tracker = SoftDirty(task, supported=lambda: True)
    task.show({0x10: PRESENT, 0x11: PRESENT})
    tracker.arm()
    task.show({0x10: PRESENT, 0x11: PRESENT | MARKED})
    with monkeypatch.context() as patched:
        patched.setattr(FakeTask, "frozen", refuse)
        scan = tracker.scan()
    assert not scan.still
    for one in (scan, tracker.scan()):
        assert one.process(23).runs["start"].tolist() == [0x11 * PAGE_BYTES]


@contextlib.contextmanager
def too_late(_task, deadline_s):
    yield Frozen("stop", time.monotonic() + deadline_s)
    raise TimeoutError


def refuse(_task, _deadline_s):
    raise TimeoutError


def test_shared_memory_is_never_clean(task):
    tracker = SoftDirty(task, supported=lambda: True)
    task.show({})
    tracker.arm()
    task.show({0x30: PRESENT})
    untracked = tracker.scan().process(23).untracked
    assert [(int(run["start"]), int(run["pages"])) for run in untracked] == [(0x30000, 2)]
    assert untracked["why"].tolist() == [Unknown.REFUSED]


def test_a_process_that_was_never_unmarked_is_dirty_wholly(task):
    tracker = SoftDirty(task, supported=lambda: True)
    task.show({0x10: PRESENT})
    scan = tracker.scan()
    assert scan.process(23).runs.size == 0
    assert scan.process(23).untracked_pages == 3


def test_a_kernel_without_the_bits_is_refused(task):
    with pytest.raises(CannotTrack, match="CONFIG_MEM_SOFT_DIRTY"):
        SoftDirty(task, supported=lambda: False)


def test_the_classic_file_is_read_in_pieces(task, monkeypatch):
    monkeypatch.setattr("snaplib.kernel.pagemap._CHUNK_PAGES", 3)
    task.show(dict.fromkeys(range(16, 27), PRESENT | MARKED))
    with Pagemap(str(task.folder / "pagemap")) as pagemap:
        found = pagemap.soft_dirty(0x10 * PAGE_BYTES, 0x20 * PAGE_BYTES)
    assert int((found[:, 1] - found[:, 0]).sum()) == 11 * PAGE_BYTES
