"""A restore that fails says why, keeps the snapshot, and leaves nothing running."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.system.conftest import Bench, wait_until

SAVED = 75
#: Keeps a file open and half written, and waits to be told to go on.
PROGRAM = """
import os, time
file = open("data", "w")
file.write("first\\n")
file.flush()
open("ready", "w").close()
while not os.path.exists("go"):
    time.sleep(0.01)
file.write("second\\n")
"""


@pytest.fixture
def saved(bench: Bench) -> list[str]:
    """A task that was saved; returns the command that resumes it."""
    arguments = ["run", "--", sys.executable, "-c", PROGRAM]
    process = bench.start(arguments)
    wait_until((bench.folder / "ready").exists, "the task to be ready")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == SAVED
    (bench.folder / "go").touch()
    return arguments


def snapshot_count(bench: Bench) -> int:
    """Return how many snapshots the store has."""
    return len(list(bench.store.glob("manifests/*/*.json")))


def test_a_file_that_has_changed(bench: Bench, saved: list[str]) -> None:
    """The file is named; once it is as it was, the task resumes."""
    data = bench.folder / "data"
    data.write_text("first\nsomebody else\n")
    done = bench.run(*saved)

    assert done.returncode == 176
    assert "data had 6 bytes" in done.stderr.splitlines()[-1]
    assert bench.sessions() == []
    assert snapshot_count(bench) == 1

    data.write_text("first\n")
    assert bench.run(*saved).returncode == 0
    assert data.read_text() == "first\nsecond\n"


def test_a_file_that_is_gone(bench: Bench, saved: list[str]) -> None:
    """The file is named, and the command can be started again if that is wanted."""
    (bench.folder / "data").unlink()
    done = bench.run(*saved)
    assert done.returncode == 176
    assert "data" in done.stderr.splitlines()[-1]

    (bench.folder / "ready").unlink()
    again = bench.run("run", "--on-restore-failure", "restart", *saved[1:])
    assert again.returncode == 0
    assert (bench.folder / "ready").exists()
    assert (bench.folder / "data").read_text() == "first\nsecond\n"


@pytest.mark.parametrize("what", ["segment-0000", "index", "images"])
def test_a_damaged_snapshot(bench: Bench, saved: list[str], what: str) -> None:
    """One flipped bit is found, by verify and by the restore, and named."""
    path: Path = next(bench.store.glob(f"objects/*/{what}"))
    with path.open("r+b") as file:
        middle = os.fstat(file.fileno()).st_size // 3
        file.seek(middle)
        byte = file.read(1)[0]
        file.seek(middle)
        file.write(bytes([byte ^ 4]))
    done = bench.run(*saved)
    assert done.returncode == 176
    assert what in done.stderr.splitlines()[-1]
    assert bench.sessions() == []

    checked = bench.run("verify", "--all")
    assert checked.returncode == 176
    assert what in checked.stdout + checked.stderr


def test_a_scratch_folder_that_is_not_there(bench: Bench, saved: list[str], tmp_path: Path) -> None:
    """Found out before anything is written."""
    gone = tmp_path / "gone"
    done = bench.run(*saved, env={**bench.env, "SNAPLIB_SCRATCH_DIR": str(gone)})
    assert done.returncode == 2
    assert str(gone) in done.stderr
    assert "Traceback" not in done.stderr
