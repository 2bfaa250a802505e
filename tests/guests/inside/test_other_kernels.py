"""What other kernels left is restored here, and refused with the reason; their compiled programs are not loaded."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from snaplib.checkpoint import hostcheck, restore
from snaplib.errors import RestoreFailed
from snaplib.kernel.bpf import cache as bpf_cache
from snaplib.kernel.bpf.cache import BpfUnavailable, BytecodeCache
from snaplib.store import Store
from tests.guests.inside.features import LEFT, NOWHERE, all_work, ended

IN = Path("/in")

FOUND = sorted(IN.glob("*/left.tar"))
PROGRAMS = sorted(IN.glob("*/programs/*.json"))

pytestmark = pytest.mark.skipif(not FOUND, reason="no other kernel has left anything in /in")


@pytest.mark.require("all")
@pytest.mark.parametrize("archive", FOUND, ids=[one.parent.name for one in FOUND])
def test_a_task_of_many_features_is_taken_over_from(archive, monkeypatch):
    shutil.rmtree(LEFT, ignore_errors=True)
    LEFT.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "-C", LEFT.parent, "-xf", archive], check=True)
    store = Store.open(str(LEFT / "store"))
    (snapshot,) = store.snapshots()
    assert snapshot.host["kernel"] != platform.release()
    with monkeypatch.context() as patched:
        # As on a machine whose CPU has less.
        patched.setattr(hostcheck, "cpu_features", tuple)
        with pytest.raises(RestoreFailed, match="this machine's CPU lacks what the task may use"):
            restore(store, snapshot.id, **NOWHERE)
    if archive.parent.name == "newest" and platform.release().startswith("6.1."):
        # Its C library registers more than the 32 bytes that kernels before 6.3 take.
        with pytest.raises(RestoreFailed, match=r"failed sys_rseq.*restartable sequences"):
            restore(store, snapshot.id, **NOWHERE)
        return
    with ended(restore(store, snapshot.id, **NOWHERE)):
        assert all_work() == {}


@pytest.mark.parametrize("file", PROGRAMS, ids=[one.parts[2] for one in PROGRAMS])
def test_programs_compiled_elsewhere_are_not_loaded(file, tmp_path, monkeypatch):
    # As on a machine without bcc, whose home folder came with an image made elsewhere.
    folder = tmp_path / "bpf"
    shutil.copytree(file.parent, folder)
    monkeypatch.setattr(bpf_cache, "installed_version", lambda: None)
    with pytest.raises(BpfUnavailable, match="no compiled programs for this kernel"):
        BytecodeCache(folder).get(["faults"])
