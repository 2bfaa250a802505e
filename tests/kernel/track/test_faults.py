"""What may go wrong while a task is tracked: the tracker dies at any step, the task does the unexpected."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from snaplib.task import Task
from snaplib.track import PAGE_BYTES, WriteProtect

PAGES = 64
ALL = set(range(PAGES))

pytestmark = pytest.mark.require("write_protect", "pidfd", "ptrace")

#: Tracks a process and ends at the n-th call of a function of ours; without n it tells how many there are.
TRACKING = """
import os, signal, sys, threading
from snaplib.task import Task
from snaplib.track import WriteProtect

end_at = int(sys.argv[2])
calls = 0

def count(frame, event, _):
    global calls
    if event == "call" and "/snaplib/" in frame.f_code.co_filename:
        calls += 1
        if calls == end_at:
            os.kill(os.getpid(), signal.SIGKILL)

sys.setprofile(count)
with Task.attach(int(sys.argv[1])) as task, WriteProtect(task) as tracker:
    tracker.arm()
    for number in range(2):
        tracker.scan(still=True)
    with task.frozen(5.0):
        tracker.scan(frozen_by_caller=True)
sys.setprofile(None)
print(calls)
"""


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def protected(pid: int) -> bool:
    return " uw " in Path(f"/proc/{pid}/smaps").read_text()


def run_tracker(pid: int, end_at: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", TRACKING, str(pid), str(end_at)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.slow
def test_a_tracker_killed_at_any_step_leaves_the_task_as_it_was(victim, eventually) -> None:
    address = victim("map", "anon", PAGES)
    victim("store", address, 0, PAGES)
    maps = Path(f"/proc/{victim.pid}/maps").read_text()
    done = run_tracker(victim.pid, 0)
    assert done.returncode == 0, done.stderr
    total = int(done.stdout)

    for part in range(1, 8):
        done = run_tracker(victim.pid, part * total // 8)
        assert done.returncode == -signal.SIGKILL, done.stderr
        # The guardian lets it run, the kernel takes the protection back.
        eventually(lambda: state_of(victim.pid) in "SR", f"it runs after {part}/8")
        eventually(lambda: not protected(victim.pid), f"nothing is protected after {part}/8")
        victim("store", address, 0, PAGES)
        assert Path(f"/proc/{victim.pid}/maps").read_text() == maps


def test_a_huge_reservation_in_the_middle_costs_nothing(victim, track, dirty) -> None:
    tracker = track(victim.pid)
    pages = (10 << 30) // PAGE_BYTES
    address = victim("map", "reserved", pages)
    for page in (0, pages // 2, pages - 1):
        victim("store", address, page, 1)
    scan = tracker.scan(still=True)
    assert dirty(scan, victim.pid, address, pages) == {0, pages // 2, pages - 1}
    assert scan.duration_s < 30
    victim("store", address, pages // 2, 1)
    assert dirty(tracker.scan(), victim.pid, address, pages) == {pages // 2}


@pytest.mark.parametrize("word", ["exec", "fork", "unmap", "end"])
def test_what_happens_between_looking_and_registering(
    victim, track, dirty, monkeypatch, word
) -> None:
    """The task changes just when it is about to be stopped for a new mapping."""
    address = victim("map", "anon", PAGES)
    victim("store", address, 0, PAGES)
    tracker = track(victim.pid, freeze_deadline_s=20.0)
    new = victim("map", "anon", PAGES)
    victim("store", new, 0, PAGES)
    frozen = Task.frozen
    happened = []

    def happen() -> None:
        if word == "exec":
            victim("exec")
        elif word == "fork":
            happened.append(victim("fork", new, 0, PAGES))
        elif word == "unmap":
            victim("unmap", address, 0, PAGES)
            victim("unmap", new, 0, PAGES)
        else:
            victim.process.kill()
            victim.process.wait()

    @contextlib.contextmanager
    def unexpected(task, deadline_s):
        monkeypatch.setattr(Task, "frozen", frozen)
        happen()
        with frozen(task, deadline_s) as stopped:
            yield stopped

    monkeypatch.setattr(Task, "frozen", unexpected)
    if word == "end":
        with pytest.raises(ProcessLookupError):
            tracker.scan()
        return
    tracker.scan()
    for _ in range(2):
        again = victim("map", "anon", PAGES)
        victim("store", again, 0, PAGES)
        assert dirty(tracker.scan(), victim.pid, again, PAGES) == ALL
        victim("store", again, 11, 1)
        assert dirty(tracker.scan(), victim.pid, again, PAGES) == {11}
    for child in happened:
        scan = tracker.scan()
        assert scan.process(child).complete
        victim("reap", child)


def test_a_process_that_ends_in_the_middle_of_a_scan(victim, require) -> None:
    address = victim("map", "anon", PAGES)
    victim("store", address, 0, PAGES)
    with Task.attach(victim.pid) as task, WriteProtect(task) as tracker:
        tracker.arm()
        child = victim("fork", address, 0, PAGES)
        tracker.scan()
        tracker.scan()
        assert child in {process.pid for process in tracker.scan(rearm=False).processes}
        os.kill(child, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while child in {process.pid for process in tracker.scan().processes}:
            # A zombie has no memory, and no record once its parent has been told.
            assert time.monotonic() < deadline
            with contextlib.suppress(RuntimeError):
                victim("reap", child)
        victim("store", address, 0, PAGES)
