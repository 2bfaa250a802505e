"""Leaves a snapshot and compiled programs for guests of other kernels; see `test_other_kernels`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from snaplib.checkpoint import dump, restore
from snaplib.kernel.bpf.cache import BytecodeCache
from snaplib.store import Store
from snaplib.task import Task
from tests.guests.inside.features import FEATURES, LEFT, NAMES, NOWHERE, all_work, ended, wait_for
from tests.kernel.conftest import eventually

__all__ = ["eventually"]

OUT = Path("/out")

pytestmark = pytest.mark.skipif(not OUT.is_dir(), reason="nothing takes what is left in /out")


@pytest.mark.require("all")
def test_a_task_of_many_features_comes_back_and_is_left():
    LEFT.mkdir(parents=True)
    task = Task.launch(["/usr/bin/python3", str(FEATURES), "together", LEFT, *NAMES], **NOWHERE)
    assert task.session is not None
    wait_for(NAMES)
    store = Store.open(str(LEFT / "store"), create=True)
    snapshot = dump(task, store, deadline_s=300)
    assert task.session.wait(60).saved == snapshot.id
    task.session.cleanup()
    # Packed, for a copy would give the files of the task the wrong owners and times; and before they change.
    (OUT / "snapshots").mkdir(exist_ok=True)
    archive = OUT / "snapshots/left.tar"
    subprocess.run(["tar", "-C", LEFT.parent, "-cf", archive, LEFT.name], check=True)
    with ended(restore(store, snapshot.id, **NOWHERE)):
        assert all_work() == {}


@pytest.mark.require("bpf_program")
def test_compiled_programs_are_left():
    cache = BytecodeCache()
    cache.get(["faults"])
    into = OUT / "snapshots/programs"
    into.mkdir(parents=True)
    shutil.copy(cache.path("faults"), into)
