"""Notice is given the way each cloud gives it, and a real task is saved in time and resumed."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snaplib.testing.metadata import FakeAws, FakeAzure, FakeGcp
from tests.system.conftest import WORKLOADS, Bench, wait_until

pytestmark = pytest.mark.slow

SAVED = 75
LINES = 25_000

#: What to put behind --reclaim, what the process needs in its environment, and how to give notice.
Way = tuple[str, dict[str, str], Callable[[], object]]


@contextlib.contextmanager
def a_way(name: str, folder: Path) -> Iterator[Way]:
    """Give a way to give notice."""
    path = folder / "going"
    if name == "aws":
        with FakeAws() as aws:
            yield "aws", aws.environment, lambda: aws.announce(120.0)
    elif name == "gcp":
        with FakeGcp() as gcp:
            yield "gcp", gcp.environment, gcp.announce
    elif name == "azure":
        with FakeAzure() as azure:
            azure.announce(30.0, name="another")
            yield "azure", azure.environment, lambda: azure.announce(30.0)
            assert len(azure.started) == 1, "the event was acknowledged once the task was saved"
    elif name == "file":
        yield f"file={path}", {}, lambda: path.write_text("25")
    else:
        line = f"until test -e {path}; do sleep 0.1; done; echo 20"
        yield f"command={line}", {}, path.touch


def events_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def names_of(path: Path) -> list[object]:
    return [event["event"] for event in events_of(path)]


@pytest.mark.parametrize("name", ["aws", "gcp", "azure", "file", "command"])
def test_saved_in_time_and_resumed(bench: Bench, name: str) -> None:
    command = [sys.executable, str(WORKLOADS / "numbered.py"), str(LINES), "0.002"]
    out, events = bench.folder / "out", bench.folder / "events"
    with a_way(name, bench.folder) as (source, environment, announce):
        with out.open("ab") as stream:
            process = bench.start(
                ["run", "--reclaim", source, "--events", events, "--", *command],
                stdout=stream,
                stderr=subprocess.DEVNULL,
                env={**bench.env, **environment},
            )
        wait_until(lambda: out.stat().st_size > 1000, "the task to write")
        announce()
        assert process.wait(60) == SAVED
    (notice,) = [event for event in events_of(events) if event["event"] == "notice"]
    window = {"aws": 120, "gcp": 30, "azure": 30, "file": 25, "command": 20}[name]
    assert window - 15 < notice["window_s"] <= window
    assert str(notice["source"]).startswith(name)
    ahead = ("plan", "copying", "copied")
    told = [one for one in names_of(events) if one not in ahead]
    assert told == ["started", "notice", "dumping", "saved"]

    with out.open("ab") as stream:
        done = bench.run(
            "run",
            "--reclaim",
            "signal",
            "--",
            *command,
            stdout=stream,
            stderr=subprocess.DEVNULL,
            capture_output=False,
        )
    assert done.returncode == 0
    assert out.read_text() == "".join(f"line {number:09d}\n" for number in range(1, LINES + 1))


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
