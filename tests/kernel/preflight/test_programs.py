"""Ordinary programs, snaplib's own sessions, the command, and how long it takes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import attrs
import pytest

from snaplib.checkpoint.preflight import preflight
from snaplib.errors import TaskEnded
from snaplib.kernel import ProcFs
from snaplib.session import Session
from snaplib.task import Task

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUSY_SQL = "with recursive c(x) as (select 1 union all select x + 1 from c) select max(x) from c;"

PROGRAMS = {
    "shell-pipeline": ["sh", "-c", "yes | sed s/y/z/ | tr z a | sort | tail -1"],
    "sort": ["sort", "--parallel=2", "/dev/zero"],
    "python": [sys.executable, "-c", "import time, json, sqlite3; time.sleep(600)"],
    "python-forks": [
        sys.executable,
        "-c",
        "import os, time; [os.fork() for _ in range(3)]; time.sleep(600)",
    ],
    "python-asyncio": [sys.executable, "-c", "import asyncio; asyncio.run(asyncio.sleep(600))"],
    "awk": ["awk", "BEGIN { while (1) n++ }"],
    "sqlite": [
        "sqlite3",
        "work.db",
        f"create table t(a); begin; insert into t values(1); {BUSY_SQL}",
    ],
}


@contextlib.contextmanager
def running(command: list[str], folder: Path) -> Iterator[int]:
    """Run a program with its streams on files for as long as the block lasts."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} here")
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        time.sleep(0.5)
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("name", PROGRAMS)
def test_ordinary_programs_are_clean(name: str, judge, tmp_path: Path) -> None:
    with running(PROGRAMS[name], tmp_path) as pid:
        assert not preflight(Task.attach(pid))
        assert not judge.dump(pid)


@pytest.fixture
def in_session(require) -> Iterator:
    """Start a command in a session of its own; it ends with the test."""
    require("root", "pid_namespace", "mount_namespace")
    started: list[Session] = []

    def start_one(command: list[str], **streams) -> Task:
        session = Session.start(command, **streams)
        started.append(session)
        time.sleep(0.5)
        return Task(session.root_host_pid, session=session)

    yield start_one
    for session in started:
        session.terminate()
        with contextlib.suppress(TimeoutError):
            session.wait(30)
        session.cleanup()


@pytest.mark.parametrize("name", PROGRAMS)
def test_sessions_are_clean(name: str, in_session, tmp_path: Path) -> None:
    if shutil.which(PROGRAMS[name][0]) is None:
        pytest.skip(f"no {PROGRAMS[name][0]} here")
    task = in_session(PROGRAMS[name], stdout=tmp_path / "out", cwd=tmp_path)
    assert not preflight(task)


def test_the_streams_of_a_session_are_no_obstacle(in_session, judge) -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    reader, writer = os.pipe()
    master, slave = os.openpty()
    assert not preflight(in_session(sleeper, stdin=subprocess.DEVNULL, stdout=writer))
    task = in_session(sleeper, stdin=slave, stdout=slave, stderr=slave)
    assert not preflight(task)
    found = preflight(task, streams=())
    assert [one.code for one in found] == ["terminal-outside"]
    for one in (reader, writer, master, slave):
        os.close(one)


def test_the_controlling_terminal_of_a_session(in_session, judge) -> None:
    code = "import time; terminal = open('/dev/tty'); time.sleep(600)"
    master, slave = os.openpty()
    task = in_session([sys.executable, "-c", code], stdin=slave, stdout=slave, stderr=slave)
    assert [one.code for one in preflight(task)] == ["controlling-terminal"]
    keys = [one.key for one in task.session.streams().streams if one.kind == "terminal"]
    options = [word for key in keys for word in ("--external", key)]
    enter = tuple(task.session.enter_prefix())
    assert "ctty inheritance" in judge.dump(task.ns_pid, *options, enter=enter)
    os.close(master)
    os.close(slave)


def test_a_process_that_left_the_tree_of_a_session(in_session) -> None:
    task = in_session(["sh", "-c", "(sleep 600 &) ; sleep 600"], stdin=subprocess.DEVNULL)
    (found,) = preflight(task)
    assert (found.code, found.severity) == ("orphan", "fatal")
    assert "(sleep)" in found.message


def test_proc_files_of_a_session(in_session) -> None:
    code = (
        "import os, time; kept = [open(f'/proc/{name}/stat') for name in (1, 'self', os.getpid())];"
        " time.sleep(600)"
    )
    assert not preflight(in_session([sys.executable, "-c", code], stdin=subprocess.DEVNULL))


def test_a_large_tree_does_not_take_long(start) -> None:
    workload = start("large", "200")
    # Ours alone counts: other programs may need the processors as well. Idle they take a tenth of a second.
    began = time.process_time()
    found = workload.preflight()
    took_s = time.process_time() - began
    assert not found
    assert took_s < 5


def test_a_task_that_has_ended(start) -> None:
    workload = start("nothing")
    with Task.attach(workload.pid) as task:
        workload.kill()
        with pytest.raises(TaskEnded):
            preflight(task)


@pytest.mark.require("root")
def test_members_that_end_meanwhile_are_left_out(tmp_path: Path) -> None:
    # Forks without end: at any time some member is just ending.
    with running(["sh", "-c", "while :; do /bin/true | /bin/true; done"], tmp_path) as pid:
        for _ in range(23):
            found = preflight(Task.attach(pid))
            assert not [one for one in found if one.code != "vfork-parent"]


def test_members_born_meanwhile_have_not_left_the_tree(in_session) -> None:
    task = in_session(
        ["sh", "-c", "while :; do /bin/true | /bin/true; done"], stdin=subprocess.DEVNULL
    )
    for _ in range(23):
        assert not [one for one in preflight(task) if one.code != "vfork-parent"]


def snaplib(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snaplib", "preflight", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command(start) -> None:
    workload = start("io-uring")
    done = snaplib(str(workload.pid))
    assert done.returncode == 177
    assert "io-uring-descriptor" in done.stdout
    assert "fd " in done.stdout
    assert "cannot be dumped" in done.stderr
    found = workload.preflight()
    done = snaplib("--json", str(workload.pid))
    assert done.returncode == 177
    assert json.loads(done.stdout) == {
        "pid": workload.pid,
        "ok": False,
        "obstacles": [attrs.asdict(one) for one in found],
    }


def test_the_command_on_a_clean_task(start) -> None:
    workload = start("files")
    done = snaplib(str(workload.pid))
    assert (done.returncode, done.stdout) == (0, "")
    done = snaplib("--json", str(workload.pid))
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"pid": workload.pid, "ok": True, "obstacles": []}


def test_the_command_finds_the_session_of_a_task(in_session) -> None:
    task = in_session(["sleep", "600"], stdin=subprocess.DEVNULL)
    done = snaplib(str(task.pid))
    assert (done.returncode, done.stdout) == (0, "")


def test_the_command_on_nobody() -> None:
    pid = next(pid for pid in range(300, 10_000) if not ProcFs().exists(pid))
    done = snaplib(str(pid))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert str(pid) in done.stderr
