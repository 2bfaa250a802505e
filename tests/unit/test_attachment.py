"""What cannot be attached to, on a made-up /proc."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from snaplib.attachment import check_attachable
from snaplib.errors import CannotDump, NoSuchTask, RootRequired, SnaplibError
from snaplib.kernel.procfs import ProcFs
from snaplib.testing.procfs import FakeProc

PF_KTHREAD = 0x00200000


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    proc = FakeProc(tmp_path)
    proc.add(1, comm="init", ppid=0)
    proc.add(100, comm="shell", ppid=1)
    # We are the child of 100.
    proc.add(os.getpid(), comm="snaplib", ppid=100)
    proc.add(500, comm="work er", ppid=1, namespaces={"pid": 1})
    return proc


def test_an_ordinary_process_passes(proc: FakeProc) -> None:
    check_attachable(proc.procfs, 500)


@pytest.mark.parametrize(
    ("process", "error", "words"),
    [
        ({"pid": 2, "flags": PF_KTHREAD, "comm": "kthreadd"}, CannotDump, "kernel thread"),
        ({"pid": 7, "state": "Z"}, CannotDump, "is a zombie"),
        ({"pid": 7, "state": "Z", "threads": (7, 8)}, CannotDump, "main thread"),
    ],
)
def test_processes_that_cannot_be_dumped(
    proc: FakeProc, process: dict[str, object], error: type[SnaplibError], words: str
) -> None:
    proc.add(**process)  # type: ignore[arg-type]
    with pytest.raises(error, match=words) as caught:
        check_attachable(proc.procfs, int(str(process["pid"])))
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_ourselves_our_ancestors_and_init(proc: FakeProc) -> None:
    for pid, words in ((os.getpid(), "snaplib itself"), (100, "an ancestor"), (1, "the init")):
        with pytest.raises(CannotDump, match=words):
            check_attachable(proc.procfs, pid)


def test_a_thread_names_its_process(proc: FakeProc) -> None:
    proc.add(600, threads=(600, 601))
    # The kernel lets a thread's folder be looked up, though it does not list it.
    (proc.root / "601").symlink_to(proc.root / "600/task/601")
    (proc.root / "600/task/601/task").symlink_to(proc.root / "600/task")
    with pytest.raises(NoSuchTask, match="601 is a thread of process 600"):
        check_attachable(proc.procfs, 601)


class _Guarded(ProcFs):
    """A /proc that lets nobody look into a process."""

    def namespaces(self, pid: int) -> dict[str, int]:
        raise PermissionError(errno.EACCES, f"Permission denied: {pid}")


@pytest.mark.parametrize(
    ("uid", "words"),
    [
        (0, r"pid 700 \('task'\) belongs to root - run it as root$"),
        (4_000_000_000, "belongs to uid 4000000000 - run it as root or as uid 4000000000"),
    ],
)
def test_somebody_elses(proc: FakeProc, uid: int, words: str) -> None:
    proc.add(700, uid=uid)
    if uid == os.getuid():
        words = "may not be looked into, though it is ours"
    with pytest.raises(RootRequired, match=words) as caught:
        check_attachable(_Guarded(proc.root), 700)
    assert caught.value.exit_code == 177
