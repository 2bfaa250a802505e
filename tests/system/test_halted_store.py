"""A store that takes nothing when notice comes: the task stands still at once, and is saved once the store goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from snaplib.errors import EXIT_DUMP_FAILED, EXIT_SAVED
from tests.system.conftest import WORKLOADS, Bench, wait_until
from tests.system.cutoff import FAST, events_of
from tests.workloads import large

pytestmark = pytest.mark.slow

MIB = 64


def state_of(pid: int) -> str:
    """Return the state of a process: ``t`` while CRIU has stopped it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_the_task_stands_still_while_the_store_does(bench: Bench) -> None:
    rate, finish, events = (bench.folder / name for name in ("rate", "finish", "events"))
    command = [sys.executable, WORKLOADS / "large.py", MIB, finish]
    rate.write_text("0")
    process = bench.start_python(
        ["tests.system.slowed", rate, "run", "--events", events, "-q", "--", *command],
        stdout=subprocess.PIPE,
    )
    wait_until((bench.folder / "rate.waited").exists, "the first copy to be on its way")
    (started,) = events_of(events, "started")
    process.send_signal(signal.SIGUSR1)
    wait_until(lambda: state_of(started["pid"]) == "t", "the task to stand still")
    assert events_of(events, "dumping")
    assert rate.read_text() == "0"
    rate.write_text(str(FAST))
    first, _ = process.communicate(timeout=100)
    assert process.returncode == EXIT_SAVED
    finish.touch()
    again = bench.start(["run", "-q", "--", *command], stdout=subprocess.PIPE)
    second, _ = again.communicate(timeout=100)
    assert again.returncode == 0
    assert large.check((first + second).decode(), MIB) > 0


def test_a_store_that_answers_nobody_any_more(bench: Bench) -> None:
    """The task runs on when the window is over, and is saved by the next run."""
    rate, finish, events, out = map(bench.folder.joinpath, ("rate", "finish", "events", "out"))
    command = ["--events", events, "--", sys.executable, WORKLOADS / "large.py", 16, finish]
    rate.write_text(str(FAST))
    # Not pipes: the task that runs on keeps them open.
    with out.open("ab") as stream, (bench.folder / "said").open("wb") as said:
        process = bench.start_python(
            ["tests.system.slowed", rate, "run", "--max-overhead", 0, "--window", 4, *command],
            stdout=stream,
            stderr=said,
        )
        wait_until(lambda: out.stat().st_size > 0, "the task to be at work")
        rate.write_text("-1")
        process.send_signal(signal.SIGUSR1)
        assert process.wait(100) == EXIT_DUMP_FAILED
        grown = out.stat().st_size
        wait_until(lambda: out.stat().st_size > grown, "the task to run on")
        names = [json.loads(line)["event"] for line in events.read_text().splitlines()]
        assert names[names.index("notice") :][:2] == ["notice", "dumping"]
        assert names[-2:] == ["dump_failed", "failed"]

        again = bench.start(["run", *command], stdout=stream)
        wait_until(lambda: bool(events_of(events, "adopted")), "the task to be taken over")
        again.send_signal(signal.SIGUSR1)
        assert again.wait(100) == EXIT_SAVED
        finish.touch()
        last = bench.start(["run", *command], stdout=stream)
        assert last.wait(100) == 0
    assert large.check(out.read_text(), 16) > 0
