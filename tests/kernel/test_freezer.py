"""A frozen task stands still, and runs again whatever happens to who froze it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from snaplib.errors import DeadlineExceeded, TaskEnded
from snaplib.kernel import ProcFs, TaskCgroup
from snaplib.kernel.freezer import base
from snaplib.task import Task

#: An emulated machine bears less, and takes its time.
IN_GUEST = os.environ.get("SNAPLIB_GUEST") == "1"

FREEZE_AND_HANG = """
import sys, time
from snaplib.task import Task
with Task.attach(int(sys.argv[1])).frozen(float(sys.argv[2])) as frozen:
    print(frozen.kind, flush=True)
    time.sleep(100)
"""


def freeze_in_another_process(pid: int, deadline_s: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", FREEZE_AND_HANG, str(pid), str(deadline_s)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_nothing_moves_while_frozen_and_everything_afterwards(
    counter, freezer_kind, eventually
) -> None:
    with Task.attach(counter.pid) as task:
        for _ in range(3 if IN_GUEST else 23):
            with task.frozen(20.0) as frozen:
                assert frozen.kind == freezer_kind
                before = counter.counts()
                members = counter.members()
                time.sleep(0.01)
                assert counter.counts() == before
                assert counter.members() == members
                assert frozen.remaining_s > 0
            eventually(lambda before=before: counter.moves_on_from(before), "all count again")


def test_what_the_guardian_takes_to_start_is_not_taken_from_the_time(
    counter, freezer_kind, monkeypatch
) -> None:
    """Where that is slow nothing would be done while the task stands still, and nobody told."""
    ready = []

    class Watched(base.Guard):
        def __init__(self) -> None:
            super().__init__()
            ready.append(time.monotonic())

    monkeypatch.setattr(base, "Guard", Watched)
    with Task.attach(counter.pid) as task, task.frozen(20.0) as frozen:
        assert frozen.deadline >= ready[0] + 20.0


def test_killed_while_it_froze_the_task_runs_again(counter, freezer_kind, eventually) -> None:
    process = freeze_in_another_process(counter.pid, 100)
    assert process.stdout is not None
    with process:
        assert process.stdout.readline().strip() == freezer_kind
        before = counter.counts()
        time.sleep(0.05)
        assert counter.counts() == before
        process.kill()
    eventually(lambda: counter.moves_on_from(before), "all count again")


def test_hanging_while_it_froze_the_task_runs_again_at_the_deadline(
    counter, freezer_kind, eventually
) -> None:
    began = time.monotonic()
    deadline_s = 10.0 if IN_GUEST else 3.0
    process = freeze_in_another_process(counter.pid, deadline_s)
    assert process.stdout is not None
    with process:
        assert process.stdout.readline().strip() == freezer_kind
        process.send_signal(signal.SIGSTOP)
        before = counter.counts()
        eventually(lambda: counter.moves_on_from(before), "all count again")
        assert time.monotonic() - began > deadline_s
        process.kill()


def test_a_block_that_takes_too_long_is_told_so(counter, freezer_kind, eventually) -> None:
    def outstay() -> None:
        with task.frozen(5.0):
            before = counter.counts()
            eventually(lambda: counter.moves_on_from(before), "resumed within the block")

    with Task.attach(counter.pid) as task:
        with pytest.raises(DeadlineExceeded, match="longer than allowed"):
            outstay()
        # The guardian has fired; another one serves the next freeze.
        with task.frozen():
            before = counter.counts()
        eventually(lambda: counter.moves_on_from(before), "all count again")


def test_an_error_in_the_block_thaws_too(counter, freezer_kind, eventually) -> None:
    with Task.attach(counter.pid) as task:
        before = counter.counts()
        with pytest.raises(ZeroDivisionError), task.frozen():
            _ = 1 / 0
        before = counter.counts()
        eventually(lambda: counter.moves_on_from(before), "all count again")


def test_who_was_stopped_before_stays_stopped(counter, eventually) -> None:
    procfs = ProcFs()
    # The child with a thread, found by its own child.
    stopped = next(pid for pid in procfs.children(counter.pid) if procfs.children(pid))
    os.kill(stopped, signal.SIGSTOP)
    eventually(lambda: procfs.stat(stopped).state == "T", "it stops")
    with Task.attach(counter.pid) as task:
        with task.frozen() as frozen:
            assert frozen.kind == "stop"
            before = counter.counts()
        eventually(lambda: counter.counts()[0] > before[0], "the others count again")
        assert procfs.stat(stopped).state == "T"
        assert counter.counts()[2] == before[2]
    os.kill(stopped, signal.SIGCONT)


@pytest.mark.parametrize("freezer_kind", ["cgroup-v2", "cgroup-v1"], indirect=True)
def test_a_cgroup_that_others_froze_stays_frozen(counter, freezer_kind) -> None:
    with Task.attach(counter.pid) as task:
        with task.frozen():
            pass
        freezer = task._freezing.freezer
        assert freezer is not None
        cgroup = freezer.cgroup
        assert isinstance(cgroup, TaskCgroup)
        cgroup.request(frozen=True)
        with task.frozen():
            before = counter.counts()
        assert cgroup.requested()
        time.sleep(0.05)
        assert counter.counts() == before
        cgroup.request(frozen=False)


@pytest.mark.require("freezer_cgroup_v2")
def test_a_cgroup_with_strangers_is_not_frozen(counter, eventually) -> None:
    cgroup = TaskCgroup.create(f"snaplib-test-{counter.pid}", versions=[2])
    assert cgroup is not None
    stranger = subprocess.Popen(["sleep", "100"])
    try:
        cgroup.add(stranger.pid)
        cgroup.add(counter.pid)
        with Task.attach(counter.pid) as task, task.frozen() as frozen:
            assert frozen.kind == "stop"
            assert ProcFs().stat(stranger.pid).state == "S"
    finally:
        stranger.kill()
        stranger.wait()
        counter.end()
        eventually(cgroup.remove, "the cgroup is empty")


def test_the_guardian_ends_with_the_task_object(counter) -> None:
    procfs = ProcFs()
    task = Task.attach(counter.pid)
    with task.frozen():
        guardians = set(procfs.children(os.getpid())) - {counter.pid}
        assert len(guardians) == 1
    task.close()
    assert not guardians & set(procfs.children(os.getpid()))


def test_a_task_that_has_ended_cannot_be_frozen() -> None:
    with subprocess.Popen(["sleep", "100"]) as process, Task.attach(process.pid) as task:
        process.kill()
        process.wait()
        with pytest.raises(TaskEnded), task.frozen():
            pass
