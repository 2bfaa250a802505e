"""The files of a task: what is kept of them, and how they are put back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from snaplib.checkpoint.filekeeper import FilesBefore, keep_files
from snaplib.checkpoint.taskfiles import put_back
from snaplib.errors import RestoreFailed, SnapshotDamaged, UsageError
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


def test_by_reference(holder, folder):
    """Nothing but where they are and what they were."""
    kept = save(holder, "reference").snapshot.extra["files"]
    ours = [file for file in kept["files"] if file["path"].startswith(f"{folder}/")]
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
    for content in (changed, changed + b"more", changed[:100]):
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
        {"stream": None, "parts": ["../file-1"]},
        {"stream": None, "parts": [7]},
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


def chain(holder, folder, steps, **options):
    """Save after each step, each incremental to the last; return the store and the snapshots."""
    backend = MemoryBackend()
    store = Store.over(backend, create=True)
    made = []
    for step in steps:
        step()
        with store.begin("key") as writer:
            before = FilesBefore.claimed(store, writer)
            kept = keep_files(writer, [holder], "capture", before=before, **options)
            made.append(writer.commit(extra={"files": kept}))
    return store, made


def test_only_the_tail_of_what_has_grown(holder, folder):
    """Is stored anew; each snapshot has the whole file, whichever is removed, and what changed is stored wholly."""
    path = folder / "written"
    contents = [b"a" + os.urandom(200_000)]
    contents += [contents[0] + b"more", contents[0] + b"more" + os.urandom(1000)]
    contents += [contents[2], b"x" + contents[2][1:] + b"y"]
    steps = [lambda content=content: path.write_bytes(content) for content in contents]
    store, made = chain(holder, folder, steps)

    sizes = [sum(one.size_bytes for one in snapshot.objects.values()) for snapshot in made]
    assert min(sizes[0], sizes[4]) > 200_000
    assert max(sizes[1:4]) < 10_000
    assert [len(snapshot.borrowed) for snapshot in made] == [0, 1, 2, 3, 0]
    for order in (0, 2, 1):
        store.remove(made[order].id)
        for snapshot, content in zip(made, contents, strict=True):
            if snapshot.id in store.ids():
                assert store.verify(snapshot.id).findings == ()
                path.unlink()
                assert str(path) in put_back(store.read(snapshot.id))
                assert path.read_bytes() == content
    for snapshot_id in store.ids():
        store.remove(snapshot_id)
    assert list(store.backend.names("")) == ["snaplib-store.json"]


def test_damage_in_what_was_borrowed(holder, folder):
    """Is found, and named by where it is."""
    path = folder / "written"
    steps = [lambda: path.write_bytes(bytes(100_000)), lambda: path.write_bytes(bytes(100_001))]
    store, made = chain(holder, folder, steps)
    (borrowed,) = made[1].borrowed
    name = f"objects/{made[0].id}/{borrowed.name}"
    store.backend.objects[name][5] ^= 1
    assert {one.object for one in store.verify(made[1].id).findings} == {name}
    path.unlink()
    with pytest.raises(SnapshotDamaged, match=name):
        put_back(store.read(made[1].id))
    del store.backend.objects[name]
    assert [str(one) for one in store.verify(made[1].id).findings] == [f"{name}: is missing"]


def test_named_files(holder, folder):
    """Go along though nobody has them open, in any mode; links and folders do not."""
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / ".index").write_bytes(b"index")
    (folder / "deep" / "link").symlink_to("../written")
    before = contents(folder)
    reader = save(holder, "reference", named=[f"{folder}/deep/**", f"{folder}/read"])
    kept = [file for file in reader.snapshot.extra["files"]["files"] if file["stream"]]
    names = sorted(file["path"].removeprefix(f"{folder}/") for file in kept)
    assert names == ["deep/er/.index", "read"]
    (folder / "read").unlink()
    (folder / "deep" / "er" / ".index").unlink()
    assert len(put_back(reader)) == 2
    assert contents(folder) == before
    assert (folder / "deep" / "er" / ".index").read_bytes() == b"index"


def test_a_file_that_lost_its_end(holder, folder):
    """What is left of it is what it began with: nothing is lost by filling it again."""
    before, reader = contents(folder), save(holder)
    os.truncate(folder / "written", 3000)
    assert put_back(reader) == [str(folder / "written")]
    assert contents(folder) == before
