"""Memory that is written into a task before it runs: no copy of it, no page of it wrong, or no task."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
import signal
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from snaplib.checkpoint import dump, memoryimages, restore
from snaplib.errors import RestoreFailed, SnapshotDamaged
from snaplib.kernel.processmemory import MemoryWriter
from snaplib.store import Store
from snaplib.task import Task

NOWHERE = {"stdin": "/dev/null", "stdout": "/dev/null", "stderr": "/dev/null"}
MIB = 1 << 20

pytestmark = pytest.mark.require("all")

#: Holds 32 MiB, and as many children as it is told to, who share them; each knows what was in them.  Some pages were
#: never touched, some are zero, some may only be read.
_HOLDS = """
import ctypes, hashlib, mmap, os, sys, time
memory = mmap.mmap(-1, 34 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, 32 << 20, 1 << 20):
    memory[at : at + (1 << 19)] = os.urandom(1 << 19)
    memory[at + (1 << 19) : at + (1 << 20)] = bytes(1 << 19) if at % 3 else bytes([at >> 20]) * (1 << 19)
fixed = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
fixed[:] = os.urandom(1 << 20)
address = ctypes.addressof(ctypes.c_char.from_buffer(fixed))
assert not ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), ctypes.c_size_t(1 << 20), 1)
digest = lambda: hashlib.blake2b(bytes(memory) + bytes(fixed)).digest()
before = digest()
for _ in range(int(sys.argv[2])):
    if not os.fork():
        break
os.write(1, b"ready\\n")
while not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
os.write(1, b"right\\n" if digest() == before else b"wrong\\n")
with_children = True
while with_children:
    try:
        os.wait()
    except ChildProcessError:
        with_children = False
"""


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep records of sessions to ourselves."""
    monkeypatch.setenv("SNAPLIB_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.delenv("SNAPLIB_SCRATCH_DIR", raising=False)


Saved = Callable[[int], str]


@pytest.fixture
def saved(
    store: Store, tmp_path: Path, tasks: list[Task], eventually: Callable[..., None]
) -> Saved:
    """Return a function that saves a task of so many children, and returns the snapshot."""

    def save(children: int) -> str:
        out = tmp_path / "out"
        workload = [sys.executable, "-I", "-S", "-c", _HOLDS, str(tmp_path / "go"), str(children)]
        task = Task.launch(workload, stdin="/dev/null", stdout=str(out), stderr="/dev/null")
        tasks.append(task)
        eventually(lambda: out.read_text() == "ready\n" * (1 + children), "the memory is there", 60)
        return dump(task, store).id

    return save


def is_right(task: Task, tmp_path: Path, processes: int) -> None:
    """Let a task that was restored look at its memory, and end."""
    (tmp_path / "go").touch()
    status = task.wait(90)
    assert status is not None
    assert status.exit_code == 0
    assert (tmp_path / "out").read_text() == "ready\n" * processes + "right\n" * processes


def sessions(tmp_path: Path) -> set[str]:
    """Return the names of the sessions that there are."""
    return {path.name for path in (tmp_path / "runtime/sessions").iterdir()}


def test_most_memory_comes_straight(
    saved: Saved, store: Store, tmp_path: Path, tasks: list[Task]
) -> None:
    """All but what may only be read, and the stack; what is zero does not even come."""
    told: list[tuple[str, float]] = []
    snapshot_id = saved(0)
    task = restore(store, snapshot_id, progress=lambda *what: told.append(what), **NOWHERE)
    tasks.append(task)
    filled = max(count for stage, count in told if stage == "filling")
    assert 16 * MIB < filled < store.get(snapshot_id).raw_bytes - MIB
    is_right(task, tmp_path, 1)


def test_where_there_is_no_room_for_images(
    saved: Saved, store: Store, tmp_path: Path, tasks: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that is in none needs none; else it is said before anything is made."""
    full = types.SimpleNamespace(f_bavail=12 * MIB, f_frsize=1)
    monkeypatch.setattr(memoryimages.os, "statvfs", lambda _path: full)
    (tmp_path / "scratch").mkdir(mode=0o700)
    monkeypatch.setenv("SNAPLIB_SCRATCH_DIR", str(tmp_path / "scratch"))
    snapshot_id = saved(0)
    with monkeypatch.context() as patch:
        patch.setattr(MemoryWriter, "write", not_allowed)
        with pytest.raises(RestoreFailed, match="there is room for 12 MiB where images are put"):
            restore(store, snapshot_id, **NOWHERE)
    task = restore(store, snapshot_id, **NOWHERE)
    tasks.append(task)
    assert not list((tmp_path / "scratch").iterdir())
    is_right(task, tmp_path, 1)


def not_allowed(*_arguments: object) -> None:
    """Some hosts let nobody write into processes."""
    raise PermissionError(1, "Operation not permitted")


def test_processes_go_on_sharing(
    saved: Saved, store: Store, tmp_path: Path, tasks: list[Task]
) -> None:
    """What a parent and its children have in common is in memory once, as it was."""
    task = restore(store, saved(3), **NOWHERE)
    tasks.append(task)
    pids = [member.pid for member in task.members()]
    assert len(pids) == 4
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text().split() for pid in pids]
    together_kib = sum(int(words[words.index("Pss_Anon:") + 1]) for words in rollups)
    assert together_kib < 2 * 34 * 1024
    is_right(task, tmp_path, 4)


def test_a_damaged_segment(saved: Saved, store: Store, tmp_path: Path) -> None:
    """It is found while CRIU waits: nothing runs, and nothing remains."""
    snapshot_id = saved(0)
    before = sessions(tmp_path)
    path = next((tmp_path / "store").rglob("segment-0000"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    with pytest.raises(SnapshotDamaged, match="segment-0000, offset"):
        restore(store, snapshot_id, **NOWHERE)
    (tmp_path / "go").touch()
    assert sessions(tmp_path) == before
    assert (tmp_path / "out").read_text() == "ready\n"


def test_a_task_that_is_killed_meanwhile(
    saved: Saved, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For want of memory, say: the restore says so, and nothing remains."""
    write = MemoryWriter.write

    def killed_before(writer: MemoryWriter, *arguments: object) -> None:
        os.kill(writer._pid, signal.SIGKILL)
        assert select.select([writer._descriptor], [], [], 20)[0]
        write(writer, *arguments)  # type: ignore[arg-type]

    snapshot_id = saved(0)
    before = sessions(tmp_path)
    monkeypatch.setattr(MemoryWriter, "write", killed_before)
    with pytest.raises(RestoreFailed, match="killed while its memory came"):
        restore(store, snapshot_id, **NOWHERE)
    assert sessions(tmp_path) == before


def test_writing_where_one_may_not() -> None:
    """The address is named; what comes before it has been written."""
    room = mmap.mmap(-1, 3 << 12, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    held = ctypes.c_char.from_buffer(room)
    address = ctypes.addressof(held)
    last = ctypes.c_void_p(address + (2 << 12))
    assert not ctypes.CDLL(None).mprotect(last, ctypes.c_size_t(1 << 12), mmap.PROT_READ)
    source = memoryview(bytes(range(256)) * 32)
    pages = np.array([0, 1, 2], np.uint64) * np.uint64(4096)
    with MemoryWriter(os.getpid()) as writer:
        sizes = np.full(3, 4096, np.uint64)
        with pytest.raises(OSError, match=f"{address + (2 << 12):#x}") as caught:
            writer.write(source, np.zeros(3, np.uint64), pages + np.uint64(address), sizes)
    assert caught.value.errno == errno.EFAULT
    assert room[: 2 << 12] == bytes(range(256)) * 32
    assert room[2 << 12 :] == bytes(4096)
