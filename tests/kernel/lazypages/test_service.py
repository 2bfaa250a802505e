"""A process whose memory comes from us reads what it should, whatever it does meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snaplib.checkpoint.lazypages.pieces import Pieces
from snaplib.checkpoint.lazypages.reception import RestoreGone
from snaplib.checkpoint.lazypages.service import Service
from snaplib.store.codec import RAW, ZERO
from snaplib.store.index import FRAME, PAGE_BYTES, RUN, Index

pytestmark = pytest.mark.require("all")

WORKLOAD = Path(__file__).resolve().parents[2] / "workloads" / "missing_memory.py"
PAGES, FRAME_PAGES = 1024, 64
#: Pages that the process never had, and pages of a frame of zeros.
HOLE = range(1000, 1010)
ZEROS = range(128, 192)
DEADLINE_S = 60


def value(page: int) -> int:
    """What is in all words of a page."""
    return 0 if page in HOLE or page in ZEROS else page + 1


VALUES = [value(page) for page in range(PAGES)]


class Frames:
    """Frames in memory, in another order than the addresses; each comes when it may."""

    def __init__(self, pid: int, base: int) -> None:
        count = PAGES // FRAME_PAGES
        #: Where each frame's pages are among all.
        self.order = [(7 * frame) % count for frame in range(count)]
        rows = []
        for position, block in enumerate(self.order):
            pages = [block * FRAME_PAGES + page for page in range(FRAME_PAGES)]
            # Runs of several lengths, none over a hole.
            for first, last in ((0, 5), (5, 40), (40, 50), (50, FRAME_PAGES)):
                if not set(pages[first:last]) & set(HOLE):
                    address = base + pages[first] * PAGE_BYTES
                    at = position * FRAME_PAGES + first
                    rows.append((1, 4, pid, address, last - first, at))
        frames = [
            (0, ZERO, 0, 0, FRAME_PAGES, 0)
            if block * FRAME_PAGES == ZEROS.start
            else (0, RAW, 0, FRAME_PAGES * PAGE_BYTES, FRAME_PAGES, 0)
            for block in self.order
        ]
        self.index = Index.build(np.array(rows, RUN), np.array(frames, FRAME))
        self.threads = 3
        self.may_come = [threading.Event() for _ in frames]
        self.loaded: list[int] = []

    def frame_room(self) -> memoryview:
        return memoryview(bytearray(FRAME_PAGES * PAGE_BYTES))

    def load_frame(self, number: int, room: memoryview) -> memoryview:
        assert self.may_come[number].wait(DEADLINE_S)
        words = np.frombuffer(room, np.uint64).reshape(FRAME_PAGES, -1)
        words[:] = np.arange(FRAME_PAGES)[:, None] + self.order[number] * FRAME_PAGES + 1
        self.loaded.append(number)
        return room

    def frame_of(self, page: int) -> int:
        return self.order.index(page // FRAME_PAGES)

    def let_come(self, *numbers: int) -> None:
        for number in numbers or range(len(self.may_come)):
            self.may_come[number].set()


class Patient:
    """The process, and what serves it."""

    def __init__(self, folder: Path) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / "socket"))
        self.listener.listen(1)
        self.process = subprocess.Popen(
            [sys.executable, str(WORKLOAD), str(folder / "socket"), str(PAGES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.base = int(self.process.stdout.readline())
        pid = self.process.pid
        self.frames = Frames(pid, self.base)
        self.served = 0
        pieces = Pieces.by_process(self.frames.index, self.frames.index.runs)
        self.service = Service(self.frames, pieces, [3, 5], served=self._add)
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _add(self, size: int) -> None:
        self.served += size

    def _serve(self) -> None:
        try:
            self.service.serve(self.listener)
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            self.failure = error
        finally:
            # As the serving process does: what is missing then reads as zeros.
            self.service.close()

    def begin(self, name: str, *arguments: Any) -> None:
        """Tell the process to do something."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        """What came of it."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def do(self, name: str, *arguments: Any) -> Any:
        self.begin(name, *arguments)
        return self.answer()

    def is_served(self) -> None:
        """All of the memory is there, and nobody serves any more."""
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()
        assert self.failure is None

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()
        self.frames.let_come()
        with contextlib.suppress(OSError):
            self.service.stop()
        self.thread.join(DEADLINE_S)
        self.listener.close()
        assert not self.thread.is_alive()


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Patient]:
    """A process that misses all its memory."""
    made = Patient(tmp_path)
    try:
        yield made
    finally:
        made.end()


def test_all_comes_by_itself(patient: Patient) -> None:
    """Each frame once, and the pages that never were are zeros, before and after."""
    patient.do("finish")
    assert patient.do("read", HOLE.start, 2) == [0, 0]
    patient.frames.let_come()
    patient.is_served()
    assert patient.do("read", 0, PAGES) == VALUES
    assert sorted(patient.frames.loaded) == sorted(set(patient.frames.loaded))
    assert patient.served == (PAGES - len(ZEROS) - (50 - 40)) * PAGE_BYTES


def test_what_is_touched_comes_first(patient: Patient) -> None:
    """While nothing else comes, and before all is restored."""
    patient.frames.let_come(patient.frames.frame_of(700))
    assert patient.do("read", 700, 2) == VALUES[700:702]
    patient.do("finish")
    patient.frames.let_come(patient.frames.frame_of(300))
    assert patient.do("read", 300, 2) == VALUES[300:302]
    patient.frames.let_come()
    patient.is_served()


def test_threads_that_wait_at_once(patient: Patient) -> None:
    """More of them than there are to serve them, for the same and for other pages."""
    patient.do("finish")
    patient.begin("threads", 12)
    patient.frames.let_come()
    assert patient.answer() == [VALUES] * 12
    patient.is_served()


def test_a_process_that_forks(patient: Patient) -> None:
    """A child misses what its parent misses, and what it drops is still its parent's."""
    patient.do("finish")
    patient.begin("fork", 0, PAGES, 100)
    patient.frames.let_come()
    assert patient.answer() == [0] * 100 + VALUES[100:]
    patient.is_served()
    assert patient.do("read", 0, PAGES) == VALUES


def test_a_child_that_runs_a_program(patient: Patient) -> None:
    """It needs none of what it was forked with."""
    patient.do("finish")
    assert patient.do("run") == 0
    patient.frames.let_come()
    patient.is_served()
    assert patient.do("read", 0, PAGES) == VALUES


def test_memory_that_moves(patient: Patient) -> None:
    """Pages come where they are now, twice moved, and nothing comes where they were."""
    patient.do("finish")
    patient.do("move", 100, 500)
    patient.do("move", 300, 20)
    patient.begin("read", 0, PAGES)
    patient.frames.let_come()
    assert patient.answer() == VALUES
    patient.is_served()
    assert patient.do("read", 0, PAGES) == VALUES


@pytest.mark.parametrize("count", [10, 400], ids=["few", "many"])
def test_memory_that_is_given_up(patient: Patient, count: int) -> None:
    """It reads as zeros, at once and after all the rest has come; what is written to it stays."""
    patient.do("finish")
    patient.do("drop", 300, count)
    assert patient.do("read", 300, count) == [0] * count
    patient.do("write", 305, 77)
    patient.frames.let_come()
    patient.is_served()
    expected = [*VALUES[:300], *[0] * count, *VALUES[300 + count :]]
    expected[305] = 77
    assert patient.do("read", 0, PAGES) == expected


def test_memory_that_is_given_up_after_it_came(patient: Patient) -> None:
    """It does not come again."""
    patient.do("finish")
    patient.frames.let_come(patient.frames.frame_of(700))
    assert patient.do("read", 700, 1) == [701]
    patient.do("drop", 700, 1)
    assert patient.do("read", 700, 1) == [0]
    patient.frames.let_come()
    patient.is_served()
    assert patient.do("read", 700, 2) == [0, 702]


def test_memory_that_is_unmapped(patient: Patient) -> None:
    """Frames of which nothing is wanted any more are not even read."""
    patient.do("finish")
    patient.do("unmap", 576, 128)
    patient.frames.let_come()
    patient.is_served()
    assert patient.do("read", 0, 576) == VALUES[:576]
    assert patient.do("read", 704, PAGES - 704) == VALUES[704:]
    unwanted = {patient.frames.frame_of(576), patient.frames.frame_of(640)} - {3, 5}
    # The others may have been under way when it went.
    assert len(unwanted & set(patient.frames.loaded)) <= patient.frames.threads


def test_memory_of_which_a_part_is_protected(patient: Patient) -> None:
    """What was one mapping is three."""
    patient.do("finish")
    patient.do("protect", 7, 3)
    patient.do("protect", 900, 1)
    patient.frames.let_come()
    patient.is_served()
    assert patient.do("read", 0, PAGES) == VALUES


def test_a_process_that_ends(patient: Patient) -> None:
    """Nobody waits for what it would have got."""
    patient.do("finish")
    os.kill(patient.process.pid, signal.SIGKILL)
    patient.process.wait()
    patient.frames.let_come()
    patient.is_served()


def test_a_restore_that_goes_away(patient: Patient) -> None:
    """There is no task to serve."""
    patient.process.kill()
    patient.frames.let_come()
    patient.thread.join(DEADLINE_S)
    assert isinstance(patient.failure, RestoreGone)


@pytest.mark.parametrize("seed", range(2))
def test_all_at_once(patient: Patient, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that moves, gives up, writes and forks while threads of it read, and memory comes."""
    load = patient.frames.load_frame
    pause = threading.Event()

    def slowly(number: int, room: memoryview) -> memoryview:
        # So that much happens while much is missing; nothing depends on how much.
        pause.wait(0.2)
        return load(number, room)

    monkeypatch.setattr(patient.frames, "load_frame", slowly)
    patient.do("finish")
    patient.begin("storm", seed, 150, VALUES)
    patient.frames.let_come()
    assert patient.answer() == []
    patient.is_served()
