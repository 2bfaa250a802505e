"""A task that cannot be saved: said early, and when the notice comes it is left alone."""

from __future__ import annotations

import json
import signal
import sys

from tests.system.conftest import Bench, wait_until

#: A pidfd of a process outside the task, the init of its namespace: CRIU cannot put it back.
PROGRAM = """
import os, time
held = os.pidfd_open(1)
while not os.path.exists("finish"):
    print("tick", flush=True)
    time.sleep(0.05)
raise SystemExit(5)
"""


def test_said_early_and_left_alone(bench: Bench) -> None:
    """The culprit is named soon after the start; the notice costs the task nothing."""
    out, events = bench.folder / "out", bench.folder / "events"
    with out.open("wb") as stream, (bench.folder / "err").open("wb") as errors:
        process = bench.start(
            ["run", "--window", "3", "--events", events, "--", sys.executable, "-c", PROGRAM],
            stdout=stream,
            stderr=errors,
        )
    wait_until(lambda: events.exists() and "obstacle" in events.read_text(), "the warning")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 177
    size = out.stat().st_size
    wait_until(lambda: out.stat().st_size > size, "the task to run on")
    # A plan that was being made at the notice may be told at any time after it.
    every = [json.loads(line) for line in events.read_text().splitlines()]
    told = [event for event in every if event["event"] != "plan"]
    obstacle = next(event for event in told if event["event"] == "obstacle")
    assert obstacle["code"].startswith("pidfd")
    assert [event["event"] for event in told[-2:]] == ["dump_failed", "failed"]
    assert "pidfd" in told[-1]["reason"]

    errors_again = bench.folder / "err-again"
    with errors_again.open("wb") as errors:
        command = ["run", "--events", events, "--", sys.executable, "-c", PROGRAM]
        again = bench.start(command, stderr=errors)
    wait_until(lambda: "took over" in errors_again.read_text(), "the task to be taken over")
    (bench.folder / "finish").touch()
    assert again.wait(60) == 5, "its own status is passed on"
