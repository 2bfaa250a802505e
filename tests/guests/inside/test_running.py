"""While a program runs and is looked at, no write is missed by the tracker that is used on this kernel."""

from __future__ import annotations

import contextlib
import subprocess
import time

import pytest

from snaplib.task import Task
from snaplib.track import CannotTrack, SoftDirty, Tracker, WriteProtect
from tests.shadow import Shadow

#: For so long a program runs alone between two looks.
_RUNS_S = 0.1
ROUNDS = 2
#: Of each region that is written to.
PAGES = 128

pytestmark = pytest.mark.slow


def best(task: Task) -> Tracker:
    """What `open_tracker` chooses, with the time that an emulated machine takes."""
    try:
        return WriteProtect(task, freeze_deadline_s=30.0)
    except CannotTrack:
        return SoftDirty(task, freeze_deadline_s=30.0)


@pytest.fixture
def run_tracked(tmp_path):
    """Start a program that goes on for ever, and return a shadow of it."""
    with contextlib.ExitStack() as stack:

        def start(*command: object) -> Shadow:
            # It would leave whoever looks a small part of an emulated CPU; so it gets all while nobody looks.
            words = ["nice", "-n", "19", *map(str, command)]
            process = subprocess.Popen(words, stdout=subprocess.PIPE, cwd=tmp_path)
            stack.callback(process.stdout.close)
            stack.callback(process.wait)
            stack.callback(process.kill)
            process.stdout.readline()
            task = stack.enter_context(Task.attach(process.pid))
            tracker = stack.enter_context(best(task))
            tracker.arm()
            shadow = Shadow(task, tracker)
            shadow.begin()
            return shadow

        yield start


def test_no_write_of_running_threads_is_missed(run_tracked, compiled):
    shadow = run_tracked(compiled("writer", "-Wno-unused-result"), 4, PAGES, 23)
    for _ in range(ROUNDS):
        for looks_only in (True, False):
            time.sleep(_RUNS_S)
            shadow.look() if looks_only else shadow.copy_ahead()
        shadow.compare()
    assert shadow.missing == []
    assert shadow.compared > ROUNDS * PAGES


def test_no_write_is_missed_whatever_happens_to_the_mappings(run_tracked, compiled):
    shadow = run_tracked(compiled("churn", "-Wno-unused-result"), 3)
    until = time.monotonic() + 5
    rounds = 0
    while time.monotonic() < until or rounds < ROUNDS:
        time.sleep(_RUNS_S)
        shadow.look()
        time.sleep(_RUNS_S)
        shadow.compare()
        rounds += 1
    assert shadow.missing == []
    assert shadow.task.alive(), "a system call of it failed"
