"""Attaching: what a task says of itself, and what is refused."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

import pytest

from snaplib.errors import CannotDump, NoSuchTask, RootRequired, TaskEnded
from snaplib.kernel import ProcFs
from snaplib.task import Task

NOBODY = 65534


@pytest.fixture
def sleeper():
    with subprocess.Popen(["sleep", "100"]) as process:
        yield process
        process.kill()


def one_line(error: Exception) -> str:
    text = str(error)
    assert "\n" not in text
    return text


def test_a_member_that_was_killed_is_none_any_more(sleeper) -> None:
    """Also while it takes its time to die, of which only the signal tells; it stays until it is reaped."""
    with Task.attach(sleeper.pid) as task:
        (member,) = task.members()
        assert task.is_member(member)
        sleeper.kill()
        assert not task.is_member(member)
        os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
        assert ProcFs().status(sleeper.pid).killed


def test_members_threads_and_affinity(counter) -> None:
    procfs = ProcFs()
    with Task.attach(counter.pid) as task, task.frozen():
        members = task.members()
        assert tuple(member.pid for member in members) == procfs.tree(counter.pid)
        root = members[0]
        assert (root.pid, root.ns_pid) == (task.pid, task.ns_pid) == (counter.pid, counter.pid)
        assert root.ppid == os.getpid()
        assert len(root.threads) == 2
        assert len(members) >= 3
        assert set(task.threads()) >= {counter.pid, *root.threads}
        affinity = task.affinity()
        assert set(affinity) == set(task.threads())
        assert affinity[counter.pid] == os.sched_getaffinity(counter.pid)
        assert task.start_time == procfs.stat(counter.pid).start_ticks


@pytest.mark.require("pid_namespace")
def test_a_task_in_its_own_pid_namespace_knows_both_pids() -> None:
    command = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", "sleep 100; true"]
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            procfs = ProcFs()
            for _ in range(2000):
                tree = procfs.tree(process.pid)
                if len(tree) == 3:
                    break
                os.sched_yield()
            task = Task.attach(tree[1])
            assert task.ns_pid == 1
            assert [member.ns_pid for member in task.members()] == [1, 2]
            task.close()
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_wait_and_signal(sleeper) -> None:
    with Task.attach(sleeper.pid) as task:
        assert task.alive()
        with pytest.raises(TimeoutError):
            task.wait(timeout_s=0.01)
        task.signal(signal.SIGTERM)
        assert task.wait(timeout_s=20) is None
        assert not task.alive()
        assert sleeper.wait() == -signal.SIGTERM
        for call in (task.members, task.threads, task.affinity, lambda: task.signal(15)):
            with pytest.raises(TaskEnded, match=f"{sleeper.pid} has ended"):
                call()


def test_no_such_process() -> None:
    for pid in (0, -1, 2**22 + 1, 2**40):
        with pytest.raises(NoSuchTask) as caught:
            Task.attach(pid)
        assert str(pid) in one_line(caught.value)
        assert caught.value.exit_code == 2


def test_a_thread_is_no_task() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with pytest.raises(NoSuchTask, match=f"is a thread of process {os.getpid()}"):
            Task.attach(thread.native_id or 0)
    finally:
        done.set()
        thread.join()


def test_ourselves_and_our_ancestors() -> None:
    with pytest.raises(CannotDump, match="is snaplib itself"):
        Task.attach(os.getpid())
    with pytest.raises(CannotDump, match=r"ancestor of snaplib|init of this system"):
        Task.attach(os.getppid())
    with pytest.raises(CannotDump) as caught:
        Task.attach(1)
    assert "init" in one_line(caught.value)
    assert caught.value.exit_code == 177


def test_a_kernel_thread(kernel_thread: int) -> None:
    with pytest.raises(CannotDump, match=f"pid {kernel_thread} .* is a kernel thread"):
        Task.attach(kernel_thread)


def test_a_zombie(eventually) -> None:
    with subprocess.Popen(["true"]) as process:
        eventually(lambda: ProcFs().stat(process.pid).zombie, "it ends")
        with pytest.raises(CannotDump, match=f"pid {process.pid} .* is a zombie"):
            Task.attach(process.pid)


def test_a_process_whose_main_thread_has_ended(eventually) -> None:
    script = "import ctypes, threading, time\n"
    script += "threading.Thread(target=time.sleep, args=(100,)).start()\n"
    script += "ctypes.CDLL(None).pthread_exit(None)\n"
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL) as process:
        try:
            procfs = ProcFs()
            eventually(lambda: procfs.stat(process.pid).zombie, "its main thread ends")
            assert any(one.path == "[stack]" for one in procfs.maps(process.pid))
            assert procfs.descriptors(process.pid)
            with pytest.raises(CannotDump, match=r"main thread of .* has ended while others"):
                Task.attach(process.pid)
        finally:
            process.kill()


@pytest.mark.require("root")
def test_a_task_of_another_user(sleeper) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            try:
                Task.attach(sleeper.pid)
            except RootRequired as error:
                os.write(writing, f"{error.exit_code} {error}".encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    assert text == (
        f"177 pid {sleeper.pid} ('sleep') belongs to root - run it as root or as root"
    ).replace(" or as root", "")
