"""A machine that goes without notice, or before its time: the newest snapshot is resumed, and little is lost."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from tests.system.conftest import WORKLOADS, Bench, wait_until
from tests.workloads.chained import check

pytestmark = pytest.mark.slow

#: Appends to a file of its own, beside what it writes to standard output.
LOGGING = """
import os, sys, time
number = 0
with open("log", "a") as log:
    while not os.path.exists("finish"):
        number += 1
        log.write(f"{number}\\n")
        log.flush()
        print(number, flush=True)
        time.sleep(0.005)
"""
#: Rewrites a file in place.
REWRITING = """
import os, time
number = 0
with open("state", "r+b", buffering=0) as state:
    while True:
        number += 1
        os.pwrite(state.fileno(), number.to_bytes(8, "little"), 0)
        time.sleep(0.005)
"""


def snapshots(bench: Bench) -> int:
    """Return how many snapshots were made ahead."""
    path = bench.folder / "events"
    if not path.exists():
        return 0
    lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
    return sum(json.loads(line)["event"] == "snapshot" for line in lines)


def start(bench: Bench, program: list[str | Path], out: Path):
    arguments = ["run", "--snapshot-every", "0.5", "--events", bench.folder / "events"]
    # As a shell does it for `>`.
    with out.open("wb") as stream:
        return bench.start([*arguments, "--", *program], stdout=stream, stderr=None)


@pytest.mark.parametrize("noticed", [False, True])
def test_the_output_is_that_of_one_run(bench: Bench, noticed: bool) -> None:
    """Cut off after two snapshots; also in the middle of the last dump, when the window was shorter than it said."""
    out, finish = bench.folder / "out", bench.folder / "finish"
    program = [sys.executable, WORKLOADS / "chained.py", finish]
    process = start(bench, program, out)
    wait_until(lambda: snapshots(bench) >= 2, "two snapshots")
    grown = out.stat().st_size
    wait_until(lambda: out.stat().st_size > grown, "the task to run on")
    if noticed:
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: "dumping" in (bench.folder / "events").read_text(), "the dump to begin")
    bench.machine_goes(process)
    finish.touch()
    assert start(bench, program, out).wait(60) == 0
    assert check(out.read_text()) > 0
    # What is superseded does not stay.
    assert not list(bench.store.glob("manifests/*/*.json"))


def test_what_was_appended_after_the_snapshot_is_cut_off(bench: Bench) -> None:
    out, log = bench.folder / "out", bench.folder / "log"
    program = [sys.executable, "-c", LOGGING]
    process = start(bench, program, out)
    wait_until(lambda: snapshots(bench) >= 1, "a snapshot")
    grown = log.stat().st_size
    wait_until(lambda: log.stat().st_size > grown, "the task to run on")
    bench.machine_goes(process)
    (bench.folder / "finish").touch()
    assert start(bench, program, out).wait(60) == 0
    lines = log.read_text().split()
    assert lines == [str(number) for number in range(1, len(lines) + 1)]
    assert out.read_text().split() == lines


def test_a_file_that_was_rewritten_is_named(bench: Bench) -> None:
    """What it holds is not what the task that is resumed would know: nothing is restored, and nothing touched."""
    state = bench.folder / "state"
    state.write_bytes(bytes(8))
    process = start(bench, [sys.executable, "-c", REWRITING], bench.folder / "out")
    wait_until(lambda: snapshots(bench) >= 1, "a snapshot")
    before = state.read_bytes()
    wait_until(lambda: state.read_bytes() != before, "the task to run on")
    bench.machine_goes(process)
    done = bench.run("run", "--", sys.executable, "-c", REWRITING)
    assert done.returncode == 176
    assert "state was changed after the snapshot" in done.stderr
    assert len(list(bench.store.glob("manifests/*/*.json"))) >= 1
