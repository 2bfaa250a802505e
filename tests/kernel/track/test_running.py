"""Scanning while the task runs: every page that differs from a copy must have been reported."""

from __future__ import annotations

import subprocess
import time

import pytest

from tests.shadow import Shadow


@pytest.fixture
def run_tracked(track, compiled, tmp_path):
    """Start a program that goes on for ever, and return a shadow of it."""
    started = []

    def start(*command: object) -> Shadow:
        process = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, cwd=tmp_path
        )
        started.append(process)
        process.stdout.readline()
        tracker = track(process.pid)
        shadow = Shadow(tracker._task, tracker)
        shadow.begin()
        return shadow

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.slow
def test_no_write_of_running_threads_is_missed(run_tracked, compiled):
    shadow = run_tracked(compiled("writer", "-Wno-unused-result"), 4, 512, 23)
    before = shadow.compared
    for _ in range(23):
        for _ in range(3):
            shadow.look()
        shadow.compare()
    assert shadow.missing == []
    assert shadow.compared - before > 23 * 3 * 512


@pytest.mark.slow
def test_pages_copied_while_threads_write_are_right_or_reported_again(run_tracked, compiled):
    shadow = run_tracked(compiled("writer", "-Wno-unused-result"), 4, 512, 29)
    for _ in range(23):
        for _ in range(3):
            shadow.copy_ahead()
        shadow.compare()
    assert shadow.missing == []


@pytest.mark.slow
def test_what_a_disk_writes_into_copied_pages_is_not_missed(run_tracked, compiled):
    shadow = run_tracked(compiled("direct"), 4, 2048)
    for _ in range(11):
        for _ in range(3):
            shadow.copy_ahead()
        shadow.compare()
    assert shadow.missing == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 11])
def test_no_write_is_missed_whatever_happens_to_the_mappings(run_tracked, compiled, seed):
    shadow = run_tracked(compiled("churn", "-Wno-unused-result"), seed)
    until = time.monotonic() + 3
    rounds = 0
    while rounds < 5 or time.monotonic() < until:
        time.sleep(0.01)
        shadow.look()
        time.sleep(0.02)
        shadow.compare()
        rounds += 1
    assert shadow.missing == []
    assert shadow.task.alive(), "a system call of it failed"
