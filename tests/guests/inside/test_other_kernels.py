"""What other kernels left is restored here, or refused with the reason; their compiled programs are not loaded."""

from __future__ import annotations

import contextlib
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from snaplib.checkpoint import restore
from snaplib.kernel.bpf import cache as bpf_cache
from snaplib.kernel.bpf.cache import BpfUnavailable, BytecodeCache
from snaplib.store import Store

LEFT = Path("/srv/left")
IN = Path("/in")
FEATURES = Path(__file__).resolve().parents[2] / "workloads/features.py"
NOWHERE = {"stdin": "/dev/null", "stdout": "/dev/null", "stderr": "/dev/null"}

FOUND = sorted(IN.glob("*/*.tar"))
PROGRAMS = sorted(IN.glob("*/programs/*.json"))

pytestmark = pytest.mark.skipif(not FOUND, reason="no other kernel has left anything in /in")


@pytest.mark.require("all")
@pytest.mark.parametrize("archive", FOUND, ids=[f"{one.parent.name}-{one.stem}" for one in FOUND])
def test_a_snapshot_of_another_kernel_is_restored(archive, capsys):
    LEFT.mkdir(parents=True, exist_ok=True)
    folder = LEFT / archive.stem
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["tar", "-C", LEFT, "-xf", archive], check=True)
    store = Store.open(str(folder / "store"))
    (snapshot,) = store.snapshots()
    assert snapshot.host["kernel"] != platform.release()
    task = restore(store, snapshot.id, **NOWHERE)
    try:
        done = subprocess.run(
            [sys.executable, str(FEATURES), "check", str(folder / "ready")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.strip() == "OK"
        assert task.alive()
    finally:
        assert task.session is not None
        task.session.terminate()
        with contextlib.suppress(TimeoutError):
            task.session.wait(20)
        task.session.cleanup()


@pytest.mark.parametrize("file", PROGRAMS, ids=[one.parts[2] for one in PROGRAMS])
def test_programs_compiled_for_another_kernel_are_not_loaded(file, tmp_path, monkeypatch):
    # As on a machine without bcc, whose home folder came with an image made elsewhere.
    folder = tmp_path / "bpf"
    shutil.copytree(file.parent, folder)
    monkeypatch.setattr(bpf_cache, "installed_version", lambda: None)
    with pytest.raises(BpfUnavailable, match="no compiled programs for this kernel"):
        BytecodeCache(folder).get(["faults"])
