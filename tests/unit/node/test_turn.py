"""Runs of one node that find each other and take turns, without a daemon."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from snaplib.node import Entry, Registry, Turn, Waiting, resident_bytes


class Clock:
    """A clock that only the test moves."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


Maker = Callable[..., Turn]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Maker:
    """Return what makes a run of a node of its own."""
    monkeypatch.setenv("SNAPLIB_RUNTIME_DIR", str(tmp_path / "run"))

    def turn(name: str, age_s: float = 100.0, priority: int = 0) -> Turn:
        entry = Entry(
            name, name, "running", os.getpid(), clock.now_s - age_s, priority, size_bytes=10 << 20
        )
        return Turn(Registry(name), entry, clock)

    return turn


def test_one_alone_begins_at_once(make: Maker, clock: Clock) -> None:
    turn = make("a")
    turn.noticed(clock.now_s + 30, 1 << 30, 5.0, grace_s=2.5)
    assert turn.begin() is None
    turn.done(1 << 30, 4.0)
    turn.leave()


def test_the_second_waits_until_the_first_is_done(make: Maker, clock: Clock) -> None:
    first, second = make("a"), make("b")
    for turn in (first, second):
        turn.noticed(clock.now_s + 30, 1 << 30, 5.0)
    assert first.begin() is None
    assert second.begin() == Waiting(("a",), 5.0)
    clock.now_s += 4
    assert second.begin() == Waiting(("a",), 1.0)
    first.done(1 << 30, 4.0)
    first.leave()
    assert second.begin() is None
    second.leave()


def test_those_that_do_not_fit_wait_for_those_that_do(make: Maker, clock: Clock) -> None:
    large, small = make("large"), make("small")
    large.noticed(clock.now_s + 30, 0, 28.0)
    small.noticed(clock.now_s + 30, 0, 3.0)
    assert large.begin() == Waiting(("small",), None)
    assert small.begin() is None
    clock.now_s += 1
    small.done()
    small.leave()
    assert large.begin() is None, "it was quicker than expected"


def test_who_fits_nowhere_tries_when_nobody_else_does(make: Maker, clock: Clock) -> None:
    turns = [make("a", 200.0), make("b", 100.0)]
    for turn in turns:
        turn.noticed(clock.now_s + 30, 0, 1000.0)
    assert turns[1].begin() == Waiting(("a",), None)
    assert turns[0].begin() is None


def test_with_time_for_all_nobody_waits_for_those_that_have_not_heard(
    make: Maker, clock: Clock
) -> None:
    turn, _other = make("a"), make("b", priority=5)
    turn.noticed(clock.now_s + 3600, 0, 1.0, grace_s=2.5)
    assert turn.begin() is None


def test_without_time_for_all_they_are_waited_for_a_moment(make: Maker, clock: Clock) -> None:
    turn, _other = make("a"), make("b", priority=5)
    turn.noticed(clock.now_s + 2, 0, 1.8, grace_s=0.3)
    assert turn.begin() == Waiting(("b",), None)
    clock.now_s += 0.31
    turn.noticed(clock.now_s + 2, 0, 1.8)
    assert turn.begin() is None


def test_the_speed_of_one_dump_is_known_to_the_next(make: Maker, clock: Clock) -> None:
    first, second = make("a"), make("b")
    first.noticed(clock.now_s + 1000, 100 << 20, None)
    assert first.begin() is None
    first.done(100 << 20, 10.0)
    first.leave()
    second.noticed(clock.now_s + 1000, 200 << 20, None)
    (slot,) = second.plan().slots
    assert slot.end_s - slot.start_s == pytest.approx(20.4)


def test_a_run_that_is_killed_is_forgotten(tmp_path: Path, monkeypatch, clock: Clock) -> None:
    monkeypatch.setenv("SNAPLIB_RUNTIME_DIR", str(tmp_path / "run"))
    program = """
import os, time
from snaplib.node import Entry, Registry
Registry("dead").put(Entry("dead", "dead", "noticed", os.getpid(), 0.0, 9, 1e12, 1, 1.0))
print("ready", flush=True)
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    registry = Registry("mine")
    assert [one.name for one in registry.entries()] == ["dead"]
    process.kill()
    process.wait()
    process.stdout.close()
    assert registry.entries() == []
    assert list(registry.folder.glob("*.run")) == []


def test_a_tree_is_as_large_as_its_members() -> None:
    program = "import time; memory = b'x' * (32 << 20); print('ready', flush=True); time.sleep(600)"
    line = f'{sys.executable} -c "{program}" & wait'
    process = subprocess.Popen(["sh", "-c", line], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert 32 << 20 < resident_bytes(process.pid) < 200 << 20
    finally:
        os.killpg(process.pid, 9)
        process.wait()
        process.stdout.close()
    assert resident_bytes(process.pid) == 0


def test_without_room_for_files_nobody_waits(make: Maker, clock: Clock, tmp_path: Path) -> None:
    """A runtime folder that is full costs no task."""
    turn = make("a")
    shutil.rmtree(tmp_path / "run/node")
    (tmp_path / "run/node").write_text("in the way")
    late = make("b")
    for one in (turn, late):
        one.noticed(clock.now_s + 30, 1 << 30, 5.0)
        assert one.begin() is None
        one.done(1 << 30, 4.0)
        one.leave()
