"""Taking a userfaultfd out of programs in every state, which must not notice."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest

from snaplib.kernel import ProcFs
from snaplib.kernel.uffd import take_userfaultfds

pytestmark = pytest.mark.require("write_protect", "pidfd", "ptrace")

DELAY_MS = 3000

#: What each returns when it is left alone; the error for those that time out.
CALLS = {
    "nanosleep": (0, 0),
    "clock_nanosleep": (0, 0),
    "poll-timeout": (0, 0),
    "poll": (1, 0),
    "ppoll-timeout": (0, 0),
    "select-timeout": (0, 0),
    "select": (1, 0),
    "read": (1, 0),
    "recv": (1, 0),
    "epoll_wait": (1, 0),
    "futex": (0, 0),
    "waitpid": (1, 0),
    "sigtimedwait": (-1, errno.EAGAIN),
    "semtimedop": (-1, errno.EAGAIN),
    "msgrcv": (1, 0),
}


#: By then every call has long returned, were the machine ever so slow.
DEADLINE_S = 120.0


def take(pid: int) -> None:
    began = time.monotonic()
    (taken,) = take_userfaultfds([pid])
    took_s = time.monotonic() - began
    assert taken.userfaultfd is not None, taken.detail
    # It is stopped by a process that had to start before, and has ended since.
    assert 0 < taken.stopped_s < took_s
    assert tracer_of(pid) == 0
    taken.userfaultfd.close()


def tracer_of(pid: int) -> int:
    return next(
        int(line.split()[1])
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("TracerPid:")
    )


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_interrupted_calls_give_the_right_results(compiled):
    program = compiled("blocker", "-Wno-unused-result")
    waiting = {
        call: subprocess.Popen([program, call, str(DELAY_MS)], stdout=subprocess.PIPE, text=True)
        for call in CALLS
    }
    try:
        for process in waiting.values():
            assert process.stdout.readline() == "waiting\n"
        interrupted = 0
        for _ in range(2):
            for taken in take_userfaultfds(process.pid for process in waiting.values()):
                # On a loaded machine some of them may be done already.
                if taken.errno != errno.ESRCH:
                    assert taken.userfaultfd is not None, taken.detail
                    taken.userfaultfd.close()
                    interrupted += 1
        assert interrupted, "none was waiting any more"
        for process in waiting.values():
            process.wait(DEADLINE_S)
        answers = {
            call: tuple(map(int, process.stdout.readline().split()))
            for call, process in waiting.items()
        }
    finally:
        for process in waiting.values():
            process.kill()
            process.wait()
            process.stdout.close()
    assert {call: answer[:2] for call, answer in answers.items()} == CALLS
    for call, (_, _, took_ms) in answers.items():
        # None returns early; calls that the kernel does not take up by itself begin their timeout anew.
        assert took_ms >= DELAY_MS - 1, call


@pytest.mark.parametrize("mode", ["filter", "strict"])
def test_a_seccomp_filter_does_not_kill_for_our_calls(compiled, mode):
    command = [compiled("confined", "-Wno-unused-result"), mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.read(1) == b"c"
        for letter in (b"x", b"y", b"z"):
            take(process.pid)
            process.stdin.write(letter)
            process.stdin.flush()
            assert process.stdout.read(1) == letter
    assert process.returncode == (0 if mode == "strict" else -signal.SIGSYS)


def test_a_stopped_process_stays_stopped(victim, eventually):
    os.kill(victim.pid, signal.SIGSTOP)
    eventually(lambda: state_of(victim.pid) == "T", "it stops")
    take(victim.pid)
    eventually(lambda: state_of(victim.pid) == "T", "it is stopped again")
    time.sleep(0.05)
    assert state_of(victim.pid) == "T"
    os.kill(victim.pid, signal.SIGCONT)
    victim("peek", victim("map", "anon", 1), 0, 1)


def test_signals_and_computation_go_on(compiled):
    process = subprocess.Popen([compiled("handler")], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "counting\n"
        for _ in range(23):
            take(process.pid)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_several_processes_at_once_each_with_its_own_outcome(victim):
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    gone, taken = take_userfaultfds([ended.pid, victim.pid])
    assert (gone.pid, gone.userfaultfd, gone.errno) == (ended.pid, None, errno.ESRCH)
    assert taken.pid == victim.pid
    taken.userfaultfd.close()


def test_a_process_without_room_for_a_descriptor_is_unharmed(victim):
    victim("map", "anon", 1)
    limit = len(list(Path(f"/proc/{victim.pid}/fd").iterdir()))
    resource.prlimit(victim.pid, resource.RLIMIT_NOFILE, (limit, 1024))
    (taken,) = take_userfaultfds([victim.pid])
    assert taken.userfaultfd is None
    assert taken.errno == errno.EMFILE
    assert victim("peek", victim("map", "anon", 1), 0, 1) == 0


def test_children_forked_meanwhile_keep_no_userfaultfd(compiled):
    process = subprocess.Popen([compiled("forker")], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "forking\n"
        for _ in range(23):
            take(process.pid)
            # Those whose fork was still under way are rid of it when they are taken themselves.
            for child in filter(holds_userfaultfd, ProcFs().children(process.pid)):
                for taken in take_userfaultfds([child]):
                    if taken.userfaultfd is not None:
                        taken.userfaultfd.close()
                assert not holds_userfaultfd(child)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def holds_userfaultfd(pid: int) -> bool:
    try:
        descriptors = ProcFs().descriptors(pid)
    except ProcessLookupError:
        return False
    return any(one.target == "anon_inode:[userfaultfd]" for one in descriptors)
