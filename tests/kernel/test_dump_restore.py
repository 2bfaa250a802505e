"""What is dumped comes back as it was: each kernel feature checks itself after its restore."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snaplib.checkpoint import dump, imagefolder, restore
from snaplib.checkpoint.memoryimages import NoRoomForImages, write_images
from snaplib.kernel.memoryfolder import open_memory_folder
from snaplib.kernel.processmemory import MemoryWriter
from snaplib.store import Store
from snaplib.task import Task

FEATURES = Path(__file__).resolve().parents[1] / "workloads/features.py"
NOWHERE = {"stdin": "/dev/null", "stdout": "/dev/null", "stderr": "/dev/null"}

#: Those of `tests/workloads/plain.py` that need neither an argument nor anything of the host.
NAMES = [
    "nothing",
    "threads",
    "children",
    "zombie",
    "files",
    "deleted-file",
    "deleted-mapping",
    "renamed-link",
    "socket-pair",
    "unix-server",
    "tcp-server",
    "tcp-pair",
    "udp",
    "inotify",
    "event-descriptors",
    "expired-timer",
    "shared-memory",
    "untouched-shared-memory",
    "posix-locks",
    "terminal-pair",
    "stopped-child",
    "random-bytes",
]


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep records of sessions to ourselves."""
    monkeypatch.setenv("SNAPLIB_RUNTIME_DIR", str(tmp_path / "runtime"))
    # Named, it is where images go; else they are in memory.
    monkeypatch.delenv("SNAPLIB_SCRATCH_DIR", raising=False)


def command(name: str, ready: Path) -> list[str]:
    """Return the command of a process that holds a feature."""
    return ["/usr/bin/python3", str(FEATURES), name, str(ready)]


def wait_for(ready: Path) -> None:
    """Wait until the feature is there."""
    end = time.monotonic() + 20
    while not ready.exists():
        assert time.monotonic() < end, "the feature was not made"
        time.sleep(0.01)
    text = ready.read_text()
    if text.startswith("unsupported"):
        pytest.skip(text)
    assert text == "ready"


def works(ready: Path) -> None:
    """Let the feature check itself."""
    done = subprocess.run(
        [sys.executable, str(FEATURES), "check", str(ready)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "OK"


@pytest.mark.require("all")
@pytest.mark.parametrize("name", NAMES)
def test_a_feature_comes_back(name: str, store: Store, tmp_path: Path, tasks: list[Task]) -> None:
    """Dumped, ended, restored in a new namespace; then it is asked whether all is well."""
    ready = tmp_path / "ready"
    task = Task.launch(command(name, ready), **NOWHERE)
    tasks.append(task)
    wait_for(ready)
    # The checks of these can be made but once.
    if name not in ("zombie", "untouched-shared-memory"):
        works(ready)
    snapshot = dump(task, store)
    assert task.session is not None
    assert task.session.wait(30).saved == snapshot.id

    again = restore(store, snapshot.id, **NOWHERE)
    tasks.append(again)
    works(ready)
    assert again.ns_pid == task.ns_pid


def no_room(_reader: object, folder: Path, _criu: object) -> object:
    """The images are larger than the folder in memory."""
    if folder.is_relative_to("/proc"):
        raise NoRoomForImages("no room")
    return write_images(_reader, folder, _criu)  # type: ignore[arg-type]


def not_allowed(*_arguments: object) -> None:
    """Some hosts let nobody write into processes."""
    raise PermissionError(1, "Operation not permitted")


#: Has more memory than CRIU reads at once before it frees what it has read, and knows what was in it.
_REMEMBERS = """
import hashlib, mmap, os, sys, time
memory = mmap.mmap(-1, 160 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, len(memory), 2 << 20):
    memory[at : at + (1 << 20)] = os.urandom(1 << 20)
    memory[at + (1 << 20) : at + (2 << 20)] = at.to_bytes(8, "little") * (1 << 17)
before = hashlib.blake2b(memory).digest()
print("ready", flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
print("right" if hashlib.blake2b(memory).digest() == before else "wrong", flush=True)
"""


@pytest.fixture(params=["memory", "disk", "disk after all", "images in memory", "images on disk"])
def folders(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have images put somewhere; there they are, and memory does not stay taken."""
    made: list[tuple[int, int]] = []

    def open_folder(size_bytes: int) -> int:
        descriptor = open_memory_folder(size_bytes)
        made.append((descriptor, os.fstat(descriptor).st_dev))
        return descriptor

    monkeypatch.setattr(imagefolder, "open_memory_folder", open_folder)
    if request.param.startswith("images"):
        monkeypatch.setattr(MemoryWriter, "write", not_allowed)
    if request.param.endswith("disk"):
        monkeypatch.setattr(imagefolder, "memory_headroom_bytes", lambda: 600 << 20)
    elif request.param == "disk after all":
        monkeypatch.setattr(imagefolder, "write_images", no_room)
    yield
    made_in_memory = {"memory": 1, "disk after all": 1, "images in memory": 2}
    assert len(made) == made_in_memory.get(request.param, 0)
    for descriptor, device in made:
        with contextlib.suppress(OSError):  # it may have been given anew
            assert os.fstat(descriptor).st_dev != device


@pytest.mark.slow
@pytest.mark.require("all")
@pytest.mark.usefixtures("folders")
def test_all_memory_comes_back(
    store: Store,
    tmp_path: Path,
    tasks: list[Task],
    eventually: Callable[..., None],
) -> None:
    """Every page is what it was, wherever the images were."""
    out, go = tmp_path / "out", tmp_path / "go"
    workload = [sys.executable, "-I", "-S", "-c", _REMEMBERS, str(go)]
    task = Task.launch(workload, stdin="/dev/null", stdout=str(out), stderr="/dev/null")
    tasks.append(task)
    eventually(lambda: out.read_text() == "ready\n", "the memory is filled", 60)
    task = restore(store, dump(task, store).id, **NOWHERE)
    tasks.append(task)
    go.touch()
    status = task.wait(90)
    assert status is not None
    assert status.exit_code == 0
    assert out.read_text() == "ready\nright\n"


@pytest.mark.require("all")
@pytest.mark.parametrize("name", ["threads", "children", "shared-memory"])
def test_again_and_again(name: str, store: Store, tmp_path: Path, tasks: list[Task]) -> None:
    """What was restored can be dumped and restored again."""
    ready = tmp_path / "ready"
    task = Task.launch(command(name, ready), **NOWHERE)
    tasks.append(task)
    wait_for(ready)
    for _ in range(3):
        snapshot = dump(task, store)
        assert store.verify(snapshot.id).ok
        task = restore(store, snapshot.id, **NOWHERE)
        tasks.append(task)
        works(ready)


@pytest.mark.require("all")
def test_the_same_pids_while_the_old_ones_are_taken(
    store: Store, tmp_path: Path, tasks: list[Task]
) -> None:
    """The original runs on, and so do two copies of it, each with the pid it was dumped with."""
    ready = tmp_path / "ready"
    process = subprocess.Popen(
        command("nothing", ready),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(ready)
        snapshot = dump(Task.attach(process.pid), store, leave_running=True)
        tasks.extend(restore(store, snapshot.id, **NOWHERE) for _ in range(2))

        assert process.poll() is None
        assert [task.ns_pid for task in tasks] == [process.pid] * 2
        assert len({process.pid, *(task.pid for task in tasks)}) == 3
        assert all(task.alive() for task in tasks)
    finally:
        process.kill()
        process.wait()


@pytest.mark.require("all")
def test_a_task_of_somebody_elses_session(store: Store, tmp_path: Path, tasks: list[Task]) -> None:
    """Its session's leader, such as a shell, is no part of it and is not there afterwards."""
    ready = tmp_path / "ready"
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(
        command("threads", ready), stdin=nowhere, stdout=nowhere, stderr=nowhere
    )
    try:
        wait_for(ready)
        task = Task.attach(process.pid)
        assert task.session_leader_outside()
        snapshot = dump(task, store)
        assert process.wait(30) != 0
        tasks.append(restore(store, snapshot.id, **NOWHERE))
        works(ready)
    finally:
        process.kill()
        process.wait()


#: Leaves a process to whoever takes in orphans; and one more each time it gets SIGUSR1, which its process
#: group gets as well.
ORPHANS = """
trap '(setsid sleep 1002 &)' USR1
(setsid sleep 1001 &)
echo ready > "$0"
while :; do sleep 0.05; done
"""


def orphans(task: Task) -> list[str]:
    """Return what the orphans of a task sleep for, in seconds."""
    found = []
    for member in task.members():
        with contextlib.suppress(ProcessLookupError):
            words = task.procfs.cmdline(member.pid)
            found += [words[1]] if words[:1] == ("sleep",) and words[1] != "0.05" else []
    return sorted(found)


def test_orphans_are_saved_with_the_task_that_adopts_them(
    store: Store, tmp_path: Path, tasks: list[Task]
) -> None:
    ready = tmp_path / "ready"
    script = ["sh", "-c", ORPHANS, str(ready)]
    task = Task.launch(script, adopt_orphans=True, **NOWHERE)
    tasks.append(task)
    until(lambda: ready.exists() and orphans(task) == ["1001"], "it is adopted")
    for saved in (["1001"], ["1001", "1002"]):
        snapshot = dump(task, store)
        task = restore(store, snapshot.id, **NOWHERE)
        tasks.append(task)
        assert orphans(task) == saved
        task.signal(signal.SIGUSR1)
        until(lambda task=task, saved=saved: len(orphans(task)) == len(saved) + 1, "one more")


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.01)


@pytest.mark.require("all")
def test_cpus_of_each_thread(store: Store, tmp_path: Path, tasks: list[Task]) -> None:
    """CRIU does not keep them: we do."""
    if os.cpu_count() == 1:
        pytest.skip("one CPU leaves nothing to choose")
    ready = tmp_path / "ready"
    task = Task.launch(command("threads", ready), **NOWHERE)
    tasks.append(task)
    wait_for(ready)
    chosen = sorted(task.thread_ids())[::2]
    for tid in chosen:
        os.sched_setaffinity(tid, {1})
    expected = task.affinity()
    snapshot = dump(task, store)
    again = restore(store, snapshot.id, **NOWHERE)
    tasks.append(again)

    assert again.affinity() == expected
    works(ready)


#: Sends a number again and again; connects anew when the connection is lost, and goes on with the number it was at.
CLIENT = """
import socket, sys, time
number, lines = 0, None
while True:
    try:
        if lines is None:
            lines = socket.create_connection(("127.0.0.1", int(sys.argv[1]))).makefile("rw")
        print(number + 1, file=lines, flush=True)
        if not lines.readline():
            raise ConnectionError
        number += 1
    except OSError:
        lines = None
    time.sleep(0.01)
"""


@pytest.mark.require("all")
def test_a_connection_that_is_closed_is_made_again(store: Store, tasks: list[Task]) -> None:
    """With ``tcp="close"``: the task finds its connection lost, and its peer a new one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        port = str(listener.getsockname()[1])
        task = Task.launch(["/usr/bin/python3", "-c", CLIENT, port], **NOWHERE)
        tasks.append(task)
        first, _ = listener.accept()
        with first, first.makefile("rw") as lines:
            first.settimeout(20)
            for number in range(1, 24):
                assert lines.readline() == f"{number}\n"
                if number < 23:
                    print("yes", file=lines, flush=True)
            snapshot = dump(task, store, tcp="close")
        tasks.append(restore(store, snapshot.id, **NOWHERE))
        second, _ = listener.accept()
        with second, second.makefile("rw") as lines:
            second.settimeout(20)
            assert lines.readline() == "23\n"


@pytest.mark.require("all")
def test_a_task_whose_parent_hears_of_its_end_at_once(store: Store) -> None:
    """Nothing is left of it to be asked for once it is saved."""
    process = subprocess.Popen(
        ["sleep", "300"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    parent = threading.Thread(target=process.wait)
    parent.start()
    try:
        with Task.attach(process.pid) as task:
            snapshot = dump(task, store)
        parent.join(20)
        assert process.returncode == -signal.SIGKILL
        assert [one.id for one in store.snapshots()] == [snapshot.id]
    finally:
        process.kill()
        parent.join()
