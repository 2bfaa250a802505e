"""When a task that hardly writes is copied ahead."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest

from snaplib.supervise.activity import Activity
from snaplib.testing.procfs import FakeProc


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    made = FakeProc(tmp_path)
    made.add(23, children=[24])
    made.add(24, ppid=23)
    for pid in (23, 24):
        faults(made, pid, 100)
    return made


def faults(proc: FakeProc, pid: int, count: int) -> None:
    path = proc.root / str(pid) / "stat"
    head, _, rest = path.read_text().rpartition(")")
    fields = rest.split()
    fields[7], fields[9] = str(count), "0"
    path.write_text(f"{head}) {' '.join(fields)}\n")


def task_of(proc: FakeProc) -> Any:
    return types.SimpleNamespace(pid=23, procfs=proc.procfs)


def test_faults_of_all_processes_since_the_mark(proc: FakeProc) -> None:
    activity = Activity(task_of(proc))
    assert activity.faults() == 200
    activity.mark()
    assert activity.faults() == 0
    faults(proc, 23, 103)
    faults(proc, 24, 120)
    assert activity.faults() == 23


def test_a_process_that_has_ended_takes_nothing_away(proc: FakeProc) -> None:
    activity = Activity(task_of(proc))
    activity.mark()
    faults(proc, 23, 123)
    for one in (proc.root / "24").iterdir():
        if one.is_file():
            one.unlink()
    assert activity.faults() == 23
