"""A task that others kill has not ended: what was saved of it ahead stays, and the next run goes on from there."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from tests.system.conftest import WORKLOADS, Bench, wait_until
from tests.system.cutoff import events_of
from tests.workloads.chained import check

pytestmark = pytest.mark.slow

KILLED = 128 + signal.SIGKILL


@pytest.mark.parametrize("which", ["task", "everything", "terminal", "job"])
def test_the_next_run_goes_on_from_the_newest_snapshot(bench: Bench, which: str) -> None:
    """As when a process takes too much memory, or a terminal goes away, or a scheduler ends all of a job at once."""
    out, events, finish = (bench.folder / name for name in ("out", "events", "finish"))
    command = ["--", sys.executable, WORKLOADS / "chained.py", finish]
    with out.open("wb") as stream:
        process = bench.start(
            ["run", "--snapshot-every", "0.5", "--events", events, *command],
            stdout=stream,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )
    wait_until(lambda: bool(events_of(events, "snapshot")), "a snapshot")
    grown = out.stat().st_size
    wait_until(lambda: out.stat().st_size > grown, "the task to run on")
    (started,) = events_of(events, "started")
    if which == "everything":
        process.kill()
        for pid in bench.sessions():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not bench.sessions(), "all to be gone")
    else:
        if which == "task":
            number = signal.SIGKILL
            os.kill(started["pid"], number)
        elif which == "terminal":
            number = signal.SIGHUP
            process.send_signal(number)
        else:
            number = signal.SIGTERM
            os.kill(started["pid"], number)
            process.send_signal(number)
        assert process.wait(60) == 128 + number
        (killed,) = events_of(events, "killed")
        assert killed["snapshot"] == events_of(events, "snapshot")[-1]["snapshot"]
    process.wait(60)
    finish.touch()
    with out.open("wb") as stream:
        again = bench.start(["run", "--events", events, *command], stdout=stream)
    assert again.wait(60) == 0
    assert events_of(events, "restored")
    assert check(out.read_text()) > 0


def test_without_a_snapshot_it_begins_anew(bench: Bench) -> None:
    """Also with `--once`: it has not ended before."""
    command = [
        "run",
        "--once",
        "--",
        "sh",
        "-c",
        "test -e there && exit 7; touch there; kill -9 $$",
    ]
    assert [bench.run(*command).returncode for _ in range(2)] == [KILLED, 7]
