"""Scratch folders: gone after use, whoever is killed, and never another's."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from snaplib import scratch
from snaplib.errors import UsageError
from snaplib.scratch import scratch_dir, sweep_scratch

HOLDER = """
import signal
from snaplib.scratch import scratch_dir

with scratch_dir("dump") as folder:
    (folder / "pages").write_text("secret")
    print(folder, flush=True)
    signal.pause()
"""


@pytest.fixture(autouse=True)
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where all are made."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("SNAPLIB_SCRATCH_DIR", str(folder))
    return folder


def left(base: Path) -> Path:
    """A folder that nobody holds."""
    folder = base / f"snaplib-restore-{os.urandom(8).hex()}"
    folder.mkdir(mode=0o700)
    (folder / "pages").write_text("secret")
    return folder


def test_it_is_ours_alone_and_goes(base: Path) -> None:
    """Nobody else may look into it, and afterwards there is nothing to look at."""
    with scratch_dir("dump") as folder:
        assert folder.parent == base
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "pages").write_text("secret")
    assert not list(base.iterdir())


def test_what_a_killed_process_left_goes_and_what_is_held_stays(base: Path) -> None:
    """Whoever lives holds the lock; the kernel frees it when he dies."""
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            folder = Path(holder.stdout.readline().decode().rstrip("\n"))
            assert folder.parent == base
            sweep_scratch()
            with scratch_dir("dump") as ours:
                sweep_scratch()
                assert ours.exists()
            assert (folder / "pages").exists()
        finally:
            holder.send_signal(signal.SIGKILL)
            holder.wait()
    assert (folder / "pages").exists()
    sweep_scratch()
    assert not list(base.iterdir())


def test_the_end_of_a_use_removes_what_others_left(base: Path) -> None:
    """Not its beginning: then a task may be about to stand still."""
    with scratch_dir("dump"):
        folder = left(base)
    assert not folder.exists()
    folder = left(base)
    with scratch_dir("dump"):
        assert folder.exists()


def test_what_is_not_ours_stays(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's, what a link leads to, a file, and what others have named."""
    elsewhere = base.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    names = ["snaplib-dump-mybackup", "snaplib-dump", "tmp-dump-0123456789abcdef"]
    for name in names:
        (base / name).mkdir()
    (base / "snaplib-dump-0123456789abcdef").symlink_to(elsewhere)
    (base / "snaplib-dump-0123456789abcdee").touch()
    sweep_scratch()
    assert len(list(base.iterdir())) == 5
    assert (elsewhere / "kept").exists()

    folder = left(base)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    sweep_scratch()
    assert (folder / "pages").exists()


def test_one_that_is_swept_before_it_is_locked_is_made_again(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two it looks like a dead one's."""
    lock = scratch._lock
    swept: list[Path] = []

    def late(descriptor: int) -> bool | None:
        if not swept:
            swept.extend(base.iterdir())
            sweep_scratch()
        return lock(descriptor)

    monkeypatch.setattr(scratch, "_lock", late)
    with scratch_dir("dump") as folder:
        assert folder.exists()
        assert len(swept) == 1
        assert folder != swept[0]
    assert not list(base.iterdir())


def test_where_folders_cannot_be_locked(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It serves all the same, and nobody takes it for a dead one's."""

    def no_locks(_descriptor: int, _operation: int) -> None:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(scratch.fcntl, "flock", no_locks)
    other = left(base)
    with scratch_dir("dump") as folder:
        sweep_scratch()
        assert folder.exists()
    assert not folder.exists()
    assert other.exists()


def test_a_folder_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable to change is named; and to sweep there is nothing."""
    monkeypatch.setenv("SNAPLIB_SCRATCH_DIR", "/nowhere")
    sweep_scratch()
    with pytest.raises(UsageError, match="no scratch folder") as caught, scratch_dir("dump"):
        pass
    assert "SNAPLIB_SCRATCH_DIR" in str(caught.value.hint)
