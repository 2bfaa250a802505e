"""A store that takes nothing when notice comes: the task stands still at once, and is saved once the store goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from snaplib.errors import EXIT_SAVED
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
