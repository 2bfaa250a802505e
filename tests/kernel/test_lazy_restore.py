"""A task that runs before its memory is there computes what it would have computed anyway."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from snaplib.checkpoint import dump, restore
from snaplib.errors import RestoreFailed, SnapshotDamaged, UsageError
from snaplib.store import Store
from snaplib.task import Task
from snaplib.testing.s3 import FaultyProxy, Request, S3Server

WORKLOADS = Path(__file__).resolve().parents[1] / "workloads"
#: Enough for the task not to end before its last dump.
ROUNDS = 60
NOWHERE = {"stdin": "/dev/null", "stdout": "/dev/null", "stderr": "/dev/null"}

Eventually = Callable[..., None]

pytestmark = [pytest.mark.require("all"), pytest.mark.slow]


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for images that can be looked into; records of sessions kept to ourselves."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("SNAPLIB_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("SNAPLIB_SCRATCH_DIR", str(folder))
    return folder


@pytest.fixture
def saved(tmp_path: Path, tasks: list[Task], eventually: Eventually) -> Callable[[Store], str]:
    """Save a task of 48 MiB in mid-run; what it prints is in the file ``out``."""

    def save(store: Store) -> str:
        out = tmp_path / "out"
        command = [sys.executable, str(WORKLOADS / "memory_pages.py"), "48", str(ROUNDS)]
        task = Task.launch(command, stdin="/dev/null", stdout=str(out), stderr="/dev/null")
        tasks.append(task)
        eventually(lambda: "round 1" in out.read_text(), "the task has begun", 60)
        return dump(task, store).id

    return save


def helpers() -> dict[int, int]:
    """The processes that serve our lazy restores, and those that guard them: their parents by pid."""
    # Others on this machine may be restoring too; theirs have folders of their own.
    ours = f"SNAPLIB_SCRATCH_DIR={os.environ['SNAPLIB_SCRATCH_DIR']}".encode()
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_text(errors="replace").split("\0")
            environment = path.with_name("environ").read_bytes().split(b"\0")
            if "snaplib.checkpoint.lazypages" in words and ours in environment:
                stat = path.with_name("stat").read_text()
                found[int(path.parent.name)] = int(stat.rpartition(")")[2].split()[1])
    return found


def is_right(task: Task, tmp_path: Path) -> None:
    """The task ends well, and no page of it was wrong."""
    status = task.wait(90)
    assert status is not None
    assert status.exit_code == 0
    lines = (tmp_path / "out").read_text().splitlines()
    assert len(lines) == 1 + ROUNDS
    assert all(line.endswith(" 0 bad") for line in lines[1:])


def test_memory_comes_while_the_task_runs(
    saved: Callable[[Store], str],
    tmp_path: Path,
    tasks: list[Task],
    scratch: Path,
    eventually: Eventually,
) -> None:
    """It computes what it should; progress is told; nothing of it remains."""
    before = helpers()
    store = Store.open(tmp_path / "store")
    snapshot_id = saved(store)
    told: list[tuple[str, float]] = []
    task = restore(
        store, snapshot_id, lazy=True, progress=lambda *what: told.append(what), **NOWHERE
    )
    tasks.append(task)
    assert ("restored", store.get(snapshot_id).raw_bytes) in told
    is_right(task, tmp_path)
    eventually(lambda: helpers().keys() <= before.keys(), "the helpers have ended")
    eventually(lambda: not list(scratch.iterdir()), "the images are gone")
    assert any(stage == "fetching" for stage, _bytes in told)


def test_a_store_that_stumbles(
    saved: Callable[[Store], str],
    tmp_path: Path,
    tasks: list[Task],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The task waits for its pages, and gets the right ones."""
    with S3Server() as server, FaultyProxy(server.endpoint) as proxy:
        for name, value in server.environment(proxy.endpoint).items():
            monkeypatch.setenv(name, value)
        store = Store.open(f"s3://{server.new_bucket()}/x")
        snapshot_id = saved(store)
        faults = iter(["503", "cut", "500", "lose", "403", "503", "cut"] * 3)

        def fault(request: Request) -> str | None:
            return next(faults, None) if "segment" in request.path else None

        task = None
        proxy.fault = lambda _request: None
        task = restore(store, snapshot_id, lazy=True, **NOWHERE)
        proxy.fault = fault
        tasks.append(task)
        is_right(task, tmp_path)


@pytest.mark.parametrize("name", ["threads", "children", "shared-memory"])
def test_features(name: str, tmp_path: Path, tasks: list[Task], eventually: Eventually) -> None:
    """Several threads and processes, and memory that is not lazy, come back as well."""
    ready = tmp_path / "ready"
    command = ["/usr/bin/python3", str(WORKLOADS / "features.py"), name, str(ready)]
    task = Task.launch(command, **NOWHERE)
    tasks.append(task)
    eventually(ready.exists, "the feature is made")
    store = Store.open(tmp_path / "store")
    for _ in range(2):
        # The second dump may well come before the first restore's last page.
        snapshot = dump(task, store)
        task = restore(store, snapshot.id, lazy=True, **NOWHERE)
        tasks.append(task)
    done = os.spawnlp(
        os.P_WAIT,
        sys.executable,
        sys.executable,
        str(WORKLOADS / "features.py"),
        "check",
        str(ready),
    )
    assert done == 0


#: Has 32 MiB of pages that say where they are, and in each round moves them, drops some, forks and runs a program.
CHANGING = """
import mmap, os, subprocess, sys, time
import numpy as np
ready, go, done = sys.argv[1:]
memory = mmap.mmap(-1, 32 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
count = len(memory) // 4096
def pages():
    return np.frombuffer(memory, np.uint64).reshape(-1, 512)[:count]
pages()[:] = np.arange(1, count + 1)[:, None]
expected = np.arange(1, count + 1)
open(ready, "w").close()
while not os.path.exists(go):
    time.sleep(0.001)
right = True
for number in range(8):
    memory.resize(len(memory) + (1 << 20))
    memory.madvise(mmap.MADV_DONTNEED, number * 4096 * 5, 4096)
    expected[number * 5] = 0
    right &= subprocess.run(["/bin/true"]).returncode == 0
    pid = os.fork()
    if not pid:
        os._exit(int((pages() != expected[:, None]).any()))
    right &= os.waitpid(pid, 0)[1] == 0
right &= bool((pages() == expected[:, None]).all())
with open(done + ".part", "w") as file:
    file.write(str(right))
os.rename(done + ".part", done)
time.sleep(3600)
"""


def test_a_task_that_changes_its_memory(
    tmp_path: Path, tasks: list[Task], eventually: Eventually
) -> None:
    """Children, programs, moved and dropped memory are right while it comes."""
    ready, go, done = tmp_path / "ready", tmp_path / "go", tmp_path / "done"
    task = Task.launch([sys.executable, "-c", CHANGING, str(ready), str(go), str(done)], **NOWHERE)
    tasks.append(task)
    eventually(ready.exists, "the memory is made", 60)
    store = Store.open(tmp_path / "store")
    snapshot = dump(task, store)
    go.touch()
    tasks.append(restore(store, snapshot.id, lazy=True, **NOWHERE))
    eventually(done.exists, "all is looked at", 120)
    assert done.read_text() == "True"


def test_a_dump_before_the_last_page(
    saved: Callable[[Store], str], tmp_path: Path, tasks: list[Task]
) -> None:
    """What is dumped while memory is still missing is complete."""
    store = Store.open(tmp_path / "store")
    task = restore(store, saved(store), lazy=True, **NOWHERE)
    tasks.append(task)
    again = dump(task, store)
    task = restore(store, again.id, **NOWHERE)
    tasks.append(task)
    is_right(task, tmp_path)


def test_the_death_of_the_server_ends_the_task(
    saved: Callable[[Store], str],
    tasks: list[Task],
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
) -> None:
    """Missing memory must not read as zeros: better no task than a wrong one."""
    before = helpers()
    with S3Server() as server, FaultyProxy(server.endpoint) as proxy:
        for name, value in server.environment(proxy.endpoint).items():
            monkeypatch.setenv(name, value)
        store = Store.open(f"s3://{server.new_bucket()}/x")
        snapshot_id = saved(store)
        # What it begins with, and then nothing any more.
        enough = iter(range(6))

        def fault(request: Request) -> str | None:
            return "503" if "segment" in request.path and next(enough, None) is None else None

        def at_stage(stage: str, _bytes: float) -> None:
            if stage == "restoring":
                proxy.fault = fault

        task = restore(store, snapshot_id, lazy=True, progress=at_stage, **NOWHERE)
        tasks.append(task)
        found = {pid: parent for pid, parent in helpers().items() if pid not in before}
        (serving,) = [pid for pid, parent in found.items() if parent in found]
        os.kill(serving, signal.SIGKILL)
        status = task.wait(60)
        assert status is None or status.exit_code != 0
        eventually(lambda: helpers().keys() <= before.keys(), "the guard has ended")
        eventually(lambda: not list(scratch.iterdir()), "the images are gone")
        proxy.fault = lambda _request: None
        assert store.verify(snapshot_id).ok


def test_a_damaged_snapshot(
    saved: Callable[[Store], str], tmp_path: Path, scratch: Path, eventually: Eventually
) -> None:
    """What has no index is refused, and nothing remains."""
    before = helpers()
    store = Store.open(tmp_path / "store")
    snapshot_id = saved(store)
    for path in (tmp_path / "store").rglob("segment-*"):
        path.unlink()
    with pytest.raises((RestoreFailed, SnapshotDamaged)):
        restore(store, snapshot_id, lazy=True, **NOWHERE)
    eventually(lambda: helpers().keys() <= before.keys(), "the helpers have ended")
    eventually(lambda: not list(scratch.iterdir()), "the images are gone")


def test_not_from_the_memory_of_this_process(saved: Callable[[Store], str]) -> None:
    """Another process could not read it."""
    store = Store.open("memory://lazy")
    snapshot_id = saved(store)
    with pytest.raises(UsageError, match="this process's memory"):
        restore(store, snapshot_id, lazy=True, **NOWHERE)
