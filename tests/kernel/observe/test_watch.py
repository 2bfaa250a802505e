"""A watch on real tasks."""

from __future__ import annotations

import itertools
import os
import time

import pytest

from snaplib.errors import HostUnfit, TaskEnded, UsageError
from snaplib.kernel import ProcFs
from snaplib.observe import Watch
from snaplib.task import Task

SOURCES = ["ebpf", "proc"]

IDLE = "print('ready'); input()"

#: The loop of a workload: each line is run, and answered.
OBEY = """
import os, sys, socket, threading, time, mmap, signal
print('ready', flush=True)
for line in sys.stdin:
    exec(line)
    print('done', flush=True)
"""


@pytest.fixture(autouse=True)
def _needs(require) -> None:
    require("bpf_program", "bpf_raw_tracepoint", "btf")


@pytest.mark.parametrize("source", SOURCES)
def test_the_first_profile_is_there_at_once(start, source) -> None:
    workload = start(IDLE)
    with Watch(workload.task, 60.0, arm="none", source=source) as watch:
        profile = watch.profile()
        assert profile is watch.profile()
        assert watch.wait(timeout_s=0.0) is None
    assert profile.pid == workload.pid
    assert profile.source == source
    assert [member.pid for member in profile.members] == [workload.pid]
    assert {one.fd for one in profile.descriptors} == {0, 1, 2}
    assert profile.interval_s == 0.0
    assert abs(profile.wall_s - time.time()) < 60
    assert not watch.ended
    assert watch.profile() is profile, "it can still be had after the end"


@pytest.mark.parametrize("source", SOURCES)
def test_profiles_follow_each_other(start, source) -> None:
    workload = start(IDLE)
    with Watch(workload.task, 0.02, arm="none", source=source) as watch:
        profiles = [watch.profile()]
        while len(profiles) < 5:
            profiles.append(watch.wait(profiles[-1], timeout_s=20.0))
    times = [one.monotonic_s for one in profiles]
    assert times == sorted(set(times))
    for before, after in itertools.pairwise(profiles):
        # Whoever waits gets the newest, and on a busy machine not each.
        assert 0 < after.interval_s <= (after.monotonic_s - before.monotonic_s) * 1.000001


@pytest.mark.parametrize("source", SOURCES)
def test_the_watch_ends_with_the_task(start, source) -> None:
    workload = start(IDLE)
    with Watch(workload.task, 0.02, arm="none", source=source) as watch:
        workload.do()
        workload.process.wait()
        while watch.wait(timeout_s=20.0) is not None:
            pass
        assert watch.ended
        assert watch.profile().pid == workload.pid
    with pytest.raises(TaskEnded, match=str(workload.pid)):
        Watch(workload.task, arm="none", source=source).start()


@pytest.mark.parametrize("source", SOURCES)
def test_a_task_whose_main_thread_has_ended_lives_on(start, eventually, source) -> None:
    workload = start(OBEY)
    workload.do("threading.Thread(target=time.sleep, args=(60,)).start()")
    workload.do("import ctypes; os.open('/dev/zero', 0)")
    # exit(2) itself: os._exit would end all threads.
    workload.process.stdin.write("ctypes.CDLL(None).syscall(60, 0)\n")
    workload.process.stdin.flush()
    eventually(lambda: ProcFs().stat(workload.pid).zombie, "the main thread ends")
    with Watch(workload.task, 0.02, arm="none", source=source) as watch:
        profile = watch.wait(timeout_s=20.0)
    assert [one.pid for one in profile.members] == [workload.pid]
    assert profile.memory.anon_bytes > 100_000
    assert profile.members[0].resident_bytes > 100_000
    assert {one.fd: one.path for one in profile.descriptors}[3] == "/dev/zero"


@pytest.mark.parametrize("source", SOURCES)
def test_children_and_grandchildren_are_members(start, source) -> None:
    workload = start(OBEY)
    with Watch(workload.task, 0.02, arm="none", source=source) as watch:
        workload.do("pid = os.fork() or (os.fork(), time.sleep(60))")
        deadline = time.monotonic() + 30
        while len(watch.profile().members) < 3 and time.monotonic() < deadline:
            watch.wait(timeout_s=1.0)
        members = watch.profile().members
        workload.do("os.killpg(0, 0)")
        for member in members[1:]:
            os.kill(member.pid, 9)
    assert len(members) == 3
    assert members[0].pid == workload.pid
    assert [one.ppid for one in members[1:]] == [members[0].pid, members[1].pid]


def test_an_orphan_stays_a_member(start) -> None:
    """/proc does not know any more whose grandchild it was; who follows forks does."""
    workload = start(OBEY)
    with Watch(workload.task, 0.02, arm="none") as watch:
        workload.do("pid = os.fork() or (os.fork() and os._exit(0)) or time.sleep(60)")
        workload.do("os.waitpid(pid, 0)")
        profile = watch.wait(timeout_s=20.0)
        profile = watch.wait(profile, timeout_s=20.0)
        for member in profile.members[1:]:
            os.kill(member.pid, 9)
    assert len(profile.members) == 2
    assert profile.members[1].ppid != workload.pid


def test_exec_keeps_the_member_and_its_counts(start) -> None:
    workload = start(OBEY)
    with Watch(workload.task, 0.02, arm="none") as watch:
        workload.process.stdin.write("os.execlp('sleep', 'sleep', '60')\n")
        workload.process.stdin.flush()
        while watch.profile().members[0].comm != "sleep":
            assert watch.wait(timeout_s=20.0) is not None
        profile = watch.wait(timeout_s=20.0)
    assert profile.counts.execs == 1
    assert [(one.kind, one.pid) for one in profile.events] in ([], [("exec", workload.pid)])


@pytest.mark.parametrize("source", SOURCES)
def test_the_main_thread_ends_while_watched(start, eventually, source) -> None:
    workload = start(OBEY)
    workload.do("threading.Thread(target=time.sleep, args=(60,)).start(); import ctypes")
    with Watch(workload.task, 600.0, arm="none", source=source) as watch:
        workload.process.stdin.write("ctypes.CDLL(None).syscall(60, 0)\n")
        workload.process.stdin.flush()
        eventually(lambda: ProcFs().stat(workload.pid).zombie, "the main thread ends")
        profile = watch._profiler.take()
        assert [one.pid for one in profile.members] == [workload.pid]
        assert {one.fd for one in profile.descriptors} == {0, 1, 2}
        assert profile.counts.exits == 0


def test_exec_by_another_thread_keeps_the_member(start) -> None:
    """All other threads end, and the one that calls it gets the pid."""
    workload = start(OBEY)
    with Watch(workload.task, 0.02, arm="none", source="ebpf") as watch:
        workload.process.stdin.write(
            "threading.Thread(target=os.execlp, args=('sleep', 'sleep', '60')).start(); time.sleep(60)\n"
        )
        workload.process.stdin.flush()
        while watch.profile().members[0].comm != "sleep":
            assert watch.wait(timeout_s=20.0) is not None
        profile = watch.wait(timeout_s=20.0)
    assert [one.pid for one in profile.members] == [workload.pid]
    assert profile.counts.execs == 1
    assert profile.counts.exits == 0
    assert {one.fd for one in profile.descriptors} == {0, 1, 2}


def test_two_watches_do_not_disturb_each_other(start) -> None:
    workload = start(OBEY)
    with (
        Watch(workload.task, 0.02, arm="none") as first,
        Watch(workload.task, 0.02, arm="none") as second,
    ):
        for _ in range(23):
            workload.do("os.waitpid(os.fork() or os._exit(0), 0)")
        for watch in (first, second):
            profile = watch.wait(watch.wait(timeout_s=20.0), timeout_s=20.0)
            assert profile.counts.forks == 23
            assert profile.counts.exits == 23


@pytest.mark.parametrize("interval_s", [0.0, -1.0, float("nan"), 1e9])
def test_an_interval_that_is_none(start, interval_s) -> None:
    with pytest.raises(UsageError, match="interval"):
        Watch(start(IDLE).task, interval_s)


def test_ten_thousand_threads(start) -> None:
    workload = start(OBEY)
    workload.do("import _thread; threading.stack_size(1 << 16)")
    with Watch(workload.task, 60.0, arm="none") as watch:
        workload.do("[_thread.start_new_thread(time.sleep, (60,)) for _ in range(10_000)]")
        profile = watch._profiler.take()
    assert profile.threads == 10_001
    assert profile.counts.threads_started == 10_000
    assert len(profile.descriptors) == 3


def test_without_ebpf_the_profile_says_so(start, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("SNAPLIB_CACHE_DIR", str(tmp_path))
    (tmp_path / "bpf").mkdir(mode=0o777)
    (tmp_path / "bpf").chmod(0o777)
    with Watch(start(IDLE).task, arm="none") as watch:
        profile = watch.profile()
    assert profile.source == "proc"
    assert any("no eBPF" in note for note in profile.notes)
    with pytest.raises(HostUnfit, match="not only ours"):
        Watch(Task.attach(profile.pid), arm="none", source="ebpf").start()


def test_whoever_reads_hears_of_a_failure(start, monkeypatch) -> None:
    with Watch(start(IDLE).task, 0.05, arm="none") as watch:
        monkeypatch.setattr(watch._profiler, "take", lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            watch.wait(timeout_s=20.0)
        with pytest.raises(ZeroDivisionError):
            watch.profile()
