"""Notice is given the way each cloud gives it, and a real task is saved in time and resumed."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from snaplib.testing.metadata import FakeAws, FakeAzure, FakeGcp
from tests.system.conftest import WORKLOADS, Bench, wait_until
from tests.workloads import large

pytestmark = pytest.mark.slow

SAVED = 75

#: Source -> the seconds that it leaves, and the MiB of the task's memory.
CASES = {
    "aws": (120, 1024),
    "gcp": (30, 256),
    "azure": (30, 256),
    "kubernetes": (29, 64),
    "slurm": (120, 64),
    "file": (25, 64),
    "command": (20, 64),
}

#: What to put behind --reclaim, what the process needs in its environment, and how to give notice.
Way = tuple[str, dict[str, str], Callable[[subprocess.Popen[bytes]], object]]


@contextlib.contextmanager
def a_way(name: str, folder: Path) -> Iterator[Way]:
    """Give a way to give notice."""
    path = folder / "going"
    if name == "aws":
        with FakeAws() as aws:
            yield "aws", aws.environment, lambda _run: aws.announce(120.0)
    elif name == "gcp":
        with FakeGcp() as gcp:
            yield "gcp", gcp.environment, lambda _run: gcp.announce()
    elif name == "azure":
        with FakeAzure() as azure:
            azure.announce(30.0, name="another")
            yield "azure", azure.environment, lambda _run: azure.announce(30.0)
            assert len(azure.started) == 1, "the event was acknowledged once the task was saved"
    elif name == "kubernetes":
        grace = {"SNAPLIB_GRACE_PERIOD_S": "30"}
        yield "kubernetes", grace, lambda run: run.send_signal(signal.SIGTERM)
    elif name == "slurm":
        job = {"SLURM_JOB_ID": "23", "SLURM_JOB_END_TIME": str(int(time.time()) + 86400)}
        yield "slurm", job, lambda run: run.send_signal(signal.SIGUSR1)
    elif name == "file":
        yield f"file={path}", {}, lambda _run: path.write_text("25")
    else:
        line = f"until test -e {path}; do sleep 0.1; done; echo 20"
        yield f"command={line}", {}, lambda _run: path.touch()


def events_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def names_of(path: Path) -> list[object]:
    return [event["event"] for event in events_of(path)]


@pytest.mark.parametrize("name", CASES)
def test_saved_in_time_and_resumed(bench: Bench, name: str) -> None:
    """By a second run of the same command in a namespace of its own, on a machine that knows nothing of the first."""
    window_s, mib = CASES[name]
    finish = bench.folder / "finish"
    command = [sys.executable, WORKLOADS / "large.py", str(mib), finish]
    out, events = bench.folder / "out", bench.folder / "events"
    with a_way(name, bench.folder) as (source, environment, announce):
        with out.open("ab") as stream:
            run = bench.start(
                ["run", "--reclaim", source, "--events", events, "--", *command],
                stdout=stream,
                stderr=subprocess.DEVNULL,
                env={**bench.env, **environment},
            )
        wait_until(lambda: out.stat().st_size > 1000, "the task to write")
        announce(run)
        assert run.wait(100) == SAVED
    ahead = ("plan", "copying", "copied")
    told = [event for event in events_of(events) if event["event"] not in ahead]
    assert [event["event"] for event in told] == ["started", "notice", "dumping", "saved"]
    _started, notice, _dumping, saved = told
    assert window_s - 15 < notice["window_s"] <= window_s
    assert str(notice["source"]).startswith(name if "=" in source else ("signal", name))
    assert saved["time_s"] - notice["time_s"] < notice["window_s"]
    assert saved["memory_bytes"] > mib << 20

    shutil.rmtree(bench.runtime)
    finish.touch()
    with out.open("ab") as stream:
        again = bench.start(
            ["run", "--reclaim", "signal", "--events", events, "--", *command], stdout=stream
        )
    assert again.wait(100) == 0
    assert "restored" in names_of(events)
    assert large.check(out.read_text(), mib) > 0


def test_a_notice_that_is_taken_back(bench: Bench) -> None:
    """The dump cannot work, so that the task is still there when the notice is taken back; it runs on."""
    going, events = bench.folder / "going", bench.folder / "events"
    program = "import os, time; os.pidfd_open(os.getppid()); time.sleep(600)"
    arguments = ["--reclaim", f"file={going}", "--events", events]
    bench.start(["run", *arguments, "--", sys.executable, "-c", program])
    bench.wait_for_task()
    going.write_text("600")
    wait_until(lambda: "dump_failed" in names_of(events), "a dump that fails")
    going.write_text("300")
    wait_until(lambda: "window_moved" in names_of(events), "the window to shrink")
    going.unlink()
    wait_until(lambda: "notice_cancelled" in names_of(events), "the notice to be taken back")
    assert events_of(events)[-1]["state"] == "running"
    assert len(bench.sessions()) == 1


def test_a_service_that_is_not_there(bench: Bench) -> None:
    """It is told, and the task is not kept from running."""
    events = bench.folder / "events"
    done = bench.run(
        *["run", "--reclaim", "aws", "--events", events, "--", "sleep", "2"],
        env={**bench.env, "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:9"},
    )
    assert done.returncode == 0
    assert "source of notices aws: http://127.0.0.1:9 does not answer" in done.stderr
    assert names_of(events).count("source_failed") == 1
