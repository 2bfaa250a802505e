"""``snaplib notice`` against real runs: all are saved before it ends, and what cannot be saved is told."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.system.conftest import Bench, wait_until

pytestmark = pytest.mark.slow

SAVED = 75
#: What it holds cannot be dumped.
PIDFD = "import os, time; os.pidfd_open(os.getppid()); time.sleep(600)"


def start(bench: Bench, key: str, *program: str) -> subprocess.Popen[bytes]:
    before = len(bench.sessions(running=True))
    process = bench.start(["run", "-q", "--key", key, "--", *program])
    wait_until(lambda: len(bench.sessions(running=True)) > before, "the task to run")
    return process


def test_one_and_then_all_that_are_left(bench: Bench) -> None:
    runs = {key: start(bench, key, "sleep", "600") for key in ("first", "second", "third")}
    done = bench.run("notice", str(runs["second"].pid), "--window", "60", "--wait", "--json")
    assert done.returncode == 0, done.stderr
    (one,) = json.loads(done.stdout)["runs"]
    assert (one["key"], one["outcome"], one["state"]) == ("second", "saved", "saved")
    assert runs["second"].wait(60) == SAVED
    assert [runs[key].poll() for key in ("first", "third")] == [None, None]

    done = bench.run("notice", "--all", "--window", "60", "--wait")
    assert done.returncode == 0, done.stderr
    assert [runs[key].wait(60) for key in ("first", "third")] == [SAVED, SAVED]
    assert len(done.stderr.splitlines()) == 2
    # The notice was for those: the next run of a key goes on.
    again = start(bench, "second", "sleep", "600")
    assert again.poll() is None


def test_one_that_cannot_be_saved_and_its_notice_taken_back(bench: Bench) -> None:
    process = start(bench, "pidfd", sys.executable, "-c", PIDFD)
    waiting = bench.start(["notice", "pidfd", "--wait", "--window", "600"], stderr=subprocess.PIPE)
    wait_until(lambda: any(bench.runtime.glob("notices/*.notice")), "the notice to be given")
    assert bench.run("notice", "--cancel").returncode == 0
    assert b"taken back" in waiting.communicate(timeout=60)[1]
    assert waiting.returncode == 175
    assert process.poll() is None

    done = bench.run("notice", "--all", "--window", "1", "--wait")
    assert done.returncode in (175, 177)
    assert "error: pidfd" in done.stderr
    assert process.wait(60) in (175, 177)
