"""What ``snaplib run`` ends with."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from tests.system.conftest import SNAPLIB, Bench, wait_until


@pytest.mark.parametrize("status", [0, 1, 7, 75, 255])
def test_the_tasks_own(bench: Bench, status: int) -> None:
    """Whatever the task ends with is passed on."""
    assert bench.run("run", "--", "sh", "-c", f"exit {status}").returncode == status


def test_a_task_ended_by_a_signal(bench: Bench) -> None:
    """As shells say it: 128 and the signal's number."""
    assert bench.run("run", "--", "sh", "-c", "kill -9 $$").returncode == 128 + 9


@pytest.mark.parametrize(("command", "status"), [("/no/such/command", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_be_run(bench: Bench, command: str, status: int) -> None:
    """As shells say it, with one line that names the command."""
    done = bench.run("run", "--", command)

    assert done.returncode == status
    assert command in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", "--"],
        ["run", "--window", "0", "--", "true"],
        ["run", "--tcp", "none", "--", "true"],
        ["run", "--max-copy-rate", "fast", "--", "true"],
    ],
)
def test_usage(bench: Bench, arguments: list[str]) -> None:
    """What cannot be meant is refused before anything is started."""
    assert bench.run(*arguments).returncode == 2
    assert bench.sessions() == []


def test_status_for_saved_is_chosen(bench: Bench) -> None:
    """A scheduler has its own idea of "run me again"."""
    process = bench.start(["run", "--exit-saved", "99", "--", "sleep", "100"])
    wait_until(lambda: bool(bench.sessions()), "the task to start")
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 99


def test_a_notice_after_the_end(bench: Bench) -> None:
    """It is too late to be one, and does not change what the run ends with."""
    events = bench.folder / "events"
    process = bench.start(["run", "--events", events, "--", "sh", "-c", "exit 3"])
    wait_until(lambda: events.exists() and '"ended"' in events.read_text(), "the end")
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.001)
    assert process.returncode == 3


@pytest.mark.parametrize("closed", [(2,), (0, 1, 2)])
def test_closed_standard_streams(bench: Bench, closed: tuple[int, ...]) -> None:
    """As some daemons start their jobs: nothing else passes for one of them, and the run is a run."""
    words = " ".join(f"{number}>&-" for number in closed)
    program = "echo out; echo err >&2; head -c 1; ls -l /proc/self/fd > streams; exit 7"
    shell = ["sh", "-c", f'exec "$@" {words}', "-"]
    done = subprocess.run(
        [*shell, *SNAPLIB, "run", "--events", "events", "--", "sh", "-c", program],
        cwd=bench.folder,
        env=bench.env,
        timeout=100,
        check=False,
    )
    told = (bench.folder / "events").read_text().splitlines()
    assert done.returncode == 7
    assert [json.loads(line)["event"] for line in (told[0], told[-1])] == ["started", "ended"]
    streams = (bench.folder / "streams").read_text()
    assert "events" not in streams
    assert ".lock" not in streams


def test_signals_reach_the_task(bench: Bench) -> None:
    """Signals that are no notice go to the task, which decides."""
    program = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: sys.exit(41))
print("ready", flush=True)
time.sleep(60)
"""
    out = bench.folder / "out"
    with out.open("wb") as stream:
        process = bench.start(["run", "--", sys.executable, "-c", program], stdout=stream)
    wait_until(lambda: out.read_bytes() == b"ready\n", "the task to be ready")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 41


def test_two_at_once_for_one_key(bench: Bench) -> None:
    """The second says who is there already, and does not start the command again."""
    process = bench.start(["run", "--", "sleep", "60"])
    wait_until(lambda: bool(bench.sessions()), "the task to start")
    done = bench.run("run", "--", "sleep", "60")

    assert done.returncode == 2
    assert "already" in done.stderr
    assert process.poll() is None
    assert len(bench.sessions()) == 1


@pytest.mark.parametrize("status", [0, 7])
def test_a_command_that_is_to_run_once(bench: Bench, status: int) -> None:
    """A scheduler that reruns what has ended gets its status, and the command is not started again."""
    command = ["--", "sh", "-c", f"echo x >> ran; exit {status}"]
    assert bench.run("run", "--once", *command).returncode == status
    again = bench.run("run", "--once", *command)
    assert again.returncode == status
    assert "has ended before" in again.stderr
    assert (bench.folder / "ran").read_text() == "x\n"

    assert bench.run("run", *command).returncode == status
    assert (bench.folder / "ran").read_text() == "x\nx\n"


def test_a_task_is_not_started_more_often_than_it_may(bench: Bench) -> None:
    """Saved twice, the third attempt is refused; more attempts go on from the snapshot."""
    command = ["--", "sh", "-c", "while ! test -e go; do sleep 0.1; done"]
    for _ in range(2):
        process = bench.start(["run", "--max-attempts", "2", *command])
        bench.wait_for_task()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 75
    refused = bench.run("run", "--max-attempts", "2", *command)
    assert refused.returncode == 178
    assert "2 times" in refused.stderr

    (bench.folder / "go").touch()
    done = bench.run("run", "--max-attempts", "3", *command)
    assert done.returncode == 0
    assert "restored" in done.stderr
