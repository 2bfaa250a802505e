"""Snapshots with the task's files: each of a chain is resumed with them as they were then, the oldest too."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from snaplib.checkpoint import dump, restore
from snaplib.store import Store
from snaplib.task import Task

pytestmark = pytest.mark.require("all")

NOWHERE = {"stdin": "/dev/null", "stdout": "/dev/null", "stderr": "/dev/null"}

#: Appends 60 long lines to a file, and waits after every twenty until it may go on.
_TASK = """
import os, sys, time
with open(sys.argv[1] + "/log", "a") as log:
    for number in range(60):
        print(str(number) * 4000, file=log, flush=True)
        while number % 20 == 19 and not os.path.exists(f"{sys.argv[1]}/go-{number}"):
            time.sleep(0.01)
"""


def test_every_snapshot_of_a_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., None]
) -> None:
    """Of a log only what is new is stored each time, and whichever snapshot is resumed ends with the same one."""
    monkeypatch.setenv("SNAPLIB_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("SNAPLIB_SCRATCH_DIR", str(tmp_path))
    store = Store.open(tmp_path / "store")
    log = tmp_path / "log"
    task = Task.launch(
        [sys.executable, "-I", "-S", "-c", _TASK, str(tmp_path)], cwd=tmp_path, **NOWHERE
    )
    tasks = [task]
    try:
        snapshots = []
        for last in (19, 39, 59):
            eventually(
                lambda last=last: log.exists() and log.read_text().count("\n") == last + 1,
                "the lines are written",
                deadline_s=60,
            )
            snapshots.append(dump(task, store, leave_running=True, files="capture"))
            (tmp_path / f"go-{last}").touch()
        assert task.wait(60).exit_code == 0
        whole = log.read_text()

        assert [len(one.borrowed) for one in snapshots] == [0, 1, 2]
        for snapshot in snapshots:
            resumed = restore(store, snapshot.id, **NOWHERE)
            tasks.append(resumed)
            assert resumed.wait(60).exit_code == 0
            assert log.read_text() == whole
        store.prune(keep=1)
        log.unlink()
        tasks.append(restore(store, snapshots[2].id, **NOWHERE))
        assert tasks[-1].wait(60).exit_code == 0
        assert log.read_text() == whole
    finally:
        for one in tasks:
            assert one.session is not None
            one.session.terminate()
            one.session.cleanup()
