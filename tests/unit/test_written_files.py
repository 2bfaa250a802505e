"""Files of a task that ran on after its snapshot: cut back, or found changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from snaplib.checkpoint.written import WrittenFile, roll_back, written_files
from snaplib.errors import RestoreFailed
from snaplib.kernel.procfs import ProcFs

PROGRAM = """
import mmap, os, sys
os.chdir(sys.argv[1])
log = open("log", "a")
log.write("123456789\\n")
log.flush()
behind = open("behind", "wb", buffering=0)
behind.write(b"12345")
state = open("state", "r+b", buffering=0)
read = open("state", "rb")
shared = mmap.mmap(os.open("mapped", os.O_RDWR), 4096)
gone = open("gone", "w")
os.unlink("gone")
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, WrittenFile]:
    """What is seen of the files of a program, by name."""
    (tmp_path / "state").write_bytes(bytes(100))
    (tmp_path / "mapped").write_bytes(bytes(4096))
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        found = written_files(ProcFs(), [process.pid])
        process.kill()
    return {Path(one.path).name: one for one in found if one.path.startswith(str(tmp_path))}


def test_what_is_open_for_writing_is_seen(files: dict[str, WrittenFile]) -> None:
    assert {name: (one.size_bytes, one.at_end) for name, one in files.items()} == {
        "log": (10, True),
        "behind": (5, True),
        "state": (100, False),
        "mapped": (4096, False),
    }


def roll(files: dict[str, WrittenFile]) -> list[str]:
    return [Path(path).name for path in roll_back([attrs.asdict(one) for one in files.values()])]


def test_what_has_not_changed_is_let_be(files: dict[str, WrittenFile]) -> None:
    assert roll(files) == []


def test_what_was_appended_is_cut_off(files: dict[str, WrittenFile], tmp_path: Path) -> None:
    with (tmp_path / "log").open("a") as log:
        log.write("more\n")
    assert roll(files) == ["log"]
    assert (tmp_path / "log").read_text() == "123456789\n"


@pytest.mark.parametrize("name", ["state", "mapped"])
def test_what_changed_otherwise_is_named_and_nothing_is_touched(
    files: dict[str, WrittenFile], tmp_path: Path, name: str
) -> None:
    with (tmp_path / "log").open("a") as log:
        log.write("more\n")
    path = tmp_path / name
    os.utime(path, ns=(0, files[name].modified_ns + 1))
    with pytest.raises(RestoreFailed, match=f"{name} was changed"):
        roll(files)
    assert (tmp_path / "log").read_text() == "123456789\nmore\n"


def test_what_became_shorter_is_named(files: dict[str, WrittenFile], tmp_path: Path) -> None:
    os.truncate(tmp_path / "log", 3)
    with pytest.raises(RestoreFailed, match="log was changed"):
        roll(files)


def test_what_is_gone_is_for_criu_to_tell(files: dict[str, WrittenFile], tmp_path: Path) -> None:
    (tmp_path / "behind").unlink()
    assert roll(files) == []
