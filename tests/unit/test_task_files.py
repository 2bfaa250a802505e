"""The files of a task: what is kept of them, and how they are put back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from snaplib.checkpoint.taskfiles import keep_files, put_back
from snaplib.errors import RestoreFailed, UsageError
from snaplib.store import Store
from snaplib.testing.stores import MemoryBackend

_HOLDER = """
import mmap, sys
written = open(sys.argv[1] + "/written", "r+b")
read = open(sys.argv[1] + "/read", "rb")
with open(sys.argv[1] + "/mapped", "r+b") as file:
    mapped = mmap.mmap(file.fileno(), 4096)
gone = open(sys.argv[1] + "/gone", "w+b")
import os
os.unlink(sys.argv[1] + "/gone")
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path):
    """Files, each with what it is for as its name."""
    for name, size in (("written", 5000), ("read", 100), ("mapped", 4096)):
        (tmp_path / name).write_bytes(os.urandom(size))
    (tmp_path / "written").chmod(0o640)
    return tmp_path


@pytest.fixture
def holder(folder):
    """A process that has them open."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _HOLDER, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "ready\n"
        yield process.pid
        process.stdin.close()


def save(holder, mode="capture", **options):
    """Return a reader of a snapshot of the process's files."""
    store = Store.over(MemoryBackend(), create=True)
    with store.begin("key") as writer:
        kept = keep_files(writer, [holder], mode, **options)
        snapshot = writer.commit(extra={"files": kept})
    return store.read(snapshot.id)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_what_is_kept(holder, folder):
    """All that is open with a name; contents of what the task may write to, mapped files too."""
    reader = save(holder)
    files = {
        file["path"].rpartition("/")[2]: file for file in reader.snapshot.extra["files"]["files"]
    }
    assert {name for name, file in files.items() if file["stream"]} == {"written", "mapped"}
    assert files["read"]["size_bytes"] == 100
    assert files["written"]["mode"] == 0o640
    assert "gone" not in files
    # The program and its libraries are known as well.
    assert any(name.startswith("python3") for name in files)
    assert any(name.startswith("libc") for name in files)
    for name in ("written", "mapped"):
        with reader.open_stream(files[name]["stream"]) as stream:
            assert stream.read() == (folder / name).read_bytes()


def test_by_reference(holder):
    """Nothing but where they are and what they were."""
    kept = save(holder, "reference").snapshot.extra["files"]
    ours = [file for file in kept["files"] if "pytest-of" in file["path"]]
    assert len(ours) == 3
    assert not any(file["stream"] for file in kept["files"])


def test_a_limit(holder):
    """What is too large does not go along, and is known."""
    kept = save(holder, limit_bytes=4500).snapshot.extra["files"]["files"]
    assert [file["path"].rpartition("/")[2] for file in kept if file["stream"]] == ["mapped"]


def test_nothing_changed(holder, folder):
    """Nothing is written."""
    before = contents(folder)
    reader = save(holder)
    assert put_back(reader) == []
    assert contents(folder) == before


def test_grown_missing_and_emptied(holder, folder):
    """Cut back, put back, and filled again, with permissions and times."""
    before, reader = contents(folder), save(holder)
    status = (folder / "written").stat()
    with (folder / "written").open("ab") as file:
        file.write(b"more")
    (folder / "mapped").unlink()
    assert sorted(put_back(reader)) == [str(folder / "mapped"), str(folder / "written")]
    assert contents(folder) == before
    (folder / "written").write_bytes(b"")
    put_back(reader)
    (folder / "written").unlink()
    put_back(reader)
    assert contents(folder) == before
    again = (folder / "written").stat()
    assert (again.st_mode, again.st_mtime_ns) == (status.st_mode, status.st_mtime_ns)


def test_changed(holder, folder):
    """Refused by name and nothing is touched; or overwritten, if that is wanted."""
    before, reader = contents(folder), save(holder)
    (folder / "mapped").unlink()
    changed = b"x" + before["written"][1:]
    for content in (changed, changed + b"more", before["written"][:100]):
        (folder / "written").write_bytes(content)
        with pytest.raises(RestoreFailed, match="written has changed"):
            put_back(reader)
        assert (folder / "written").read_bytes() == content
        assert not (folder / "mapped").exists()
    put_back(reader, "overwrite")
    assert contents(folder) == before
    with pytest.raises(UsageError):
        put_back(reader, "ask")


def test_a_file_that_did_not_go_along(holder, folder):
    """It is named if it is not what it was."""
    reader = save(holder)
    (folder / "read").write_bytes(b"x")
    with pytest.raises(RestoreFailed, match="read has 1 bytes instead of 100"):
        put_back(reader)
    (folder / "read").unlink()
    with pytest.raises(RestoreFailed, match="read is not here"):
        put_back(reader)
    (folder / "read").mkdir()
    with pytest.raises(RestoreFailed, match="is none now"):
        put_back(reader)


@pytest.mark.parametrize(
    "lie",
    [
        {"path": "/tmp/../etc/passwd"},
        {"path": "passwd"},
        {"path": "/tmp/a\0b"},
        {"stream": "../../index"},
        {"stream": "index"},
        {"surplus": 1},
    ],
)
def test_manifests_that_lie(holder, folder, lie):
    """They are refused before anything is written."""
    reader = save(holder)
    (folder / "written").unlink()
    reader.snapshot.extra["files"]["files"][-1].update(lie)
    with pytest.raises(RestoreFailed):
        put_back(reader)
    assert not (folder / "written").exists()
