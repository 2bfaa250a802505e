"""Leaves snapshots and compiled programs for guests of other kernels; see `test_other_kernels`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from snaplib.checkpoint import dump
from snaplib.kernel.bpf.cache import BytecodeCache
from snaplib.store import Store
from snaplib.task import Task

FEATURES = Path(__file__).resolve().parents[2] / "workloads/features.py"
NOWHERE = {"stdin": "/dev/null", "stdout": "/dev/null", "stderr": "/dev/null"}

#: The same path in all guests: files are taken by reference.
LEFT = Path("/srv/left")
OUT = Path("/out")
NAMES = ("threads", "children", "files", "shared-memory", "tcp-pair", "event-descriptors")

pytestmark = pytest.mark.skipif(not OUT.is_dir(), reason="nothing takes what is left in /out")


@pytest.mark.require("all")
@pytest.mark.parametrize("name", NAMES)
def test_a_snapshot_is_left(name):
    folder = LEFT / name
    folder.mkdir(parents=True)
    ready = folder / "ready"
    task = Task.launch(["/usr/bin/python3", str(FEATURES), name, str(ready)], **NOWHERE)
    assert task.session is not None
    give_up = time.monotonic() + 180
    while not ready.exists():
        assert time.monotonic() < give_up
        time.sleep(0.05)
    snapshot = dump(task, Store.open(str(folder / "store"), create=True))
    assert task.session.wait(60).saved == snapshot.id
    task.session.cleanup()
    # Packed, for a copy would give the files of the task the wrong owners and times.
    (OUT / "snapshots").mkdir(exist_ok=True)
    archive = OUT / f"snapshots/{name}.tar"
    subprocess.run(["tar", "-C", LEFT, "-cf", archive, name], check=True)


@pytest.mark.require("bpf_program")
def test_compiled_programs_are_left():
    cache = BytecodeCache()
    cache.get(["faults"])
    into = OUT / "snapshots/programs"
    into.mkdir(parents=True)
    shutil.copy(cache.path("faults"), into)
    assert sys.platform == "linux"
