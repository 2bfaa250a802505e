"""Who ends a task when the process that serves it dies."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from snaplib.checkpoint.lazypages.guard import Guarded

_GUARD = """
import socket, sys
from snaplib.checkpoint.lazypages.guard import guard
assert "numpy" not in sys.modules
sys.exit(guard(socket.socket(fileno=int(sys.argv[1]))))
"""
DEADLINE_S = 60


@attrs.frozen
class Case:
    """A guard, what it is told through, and a task."""

    process: subprocess.Popen[bytes]
    channel: socket.socket
    guarded: Guarded
    task: subprocess.Popen[bytes]
    note: Path
    folder: Path


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    """A guard that was told of a task, its note and its folder."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            command = [sys.executable, "-c", _GUARD, str(theirs.fileno())]
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        task = subprocess.Popen(["sleep", "600"], start_new_session=True)
        note, folder = tmp_path / "note", tmp_path / "folder"
        note.touch()
        folder.mkdir()
        made = Case(process, ours, Guarded(ours), task, note, folder)
        pidfd = os.pidfd_open(task.pid)
        made.guarded.task(pidfd, note)
        os.close(pidfd)
        made.guarded.folder(folder)
        yield made
        ours.close()
        task.kill()
        task.wait()
        process.kill()
        process.wait()


def is_held(read_end: int, timeout_s: float) -> bool:
    """Whether somebody has the other end of a pipe still."""
    return not select.select([read_end], [], [], timeout_s)[0]


def test_all_is_well(case: Case) -> None:
    """What is held goes piece by piece, and the note at last; the task runs on."""
    first, second = os.pipe(), os.pipe()
    for _read_end, write_end in (first, second):
        case.guarded.keep(write_end)
        os.close(write_end)
    case.guarded.drop(first[1])
    assert not is_held(first[0], DEADLINE_S)
    assert is_held(second[0], 0)
    case.guarded.done()
    assert not is_held(second[0], DEADLINE_S)
    assert not case.note.exists()
    assert case.process.wait(DEADLINE_S) == 0
    assert case.task.poll() is None
    assert case.folder.exists()
    os.close(first[0])
    os.close(second[0])


def test_the_server_dies(case: Case) -> None:
    """The task is ended before anything is let go, and the images are removed; the note stays."""
    read_end, write_end = os.pipe()
    case.guarded.keep(write_end)
    os.close(write_end)
    case.channel.close()
    assert case.task.wait(DEADLINE_S) == -9
    assert not is_held(read_end, DEADLINE_S)
    assert case.process.wait(DEADLINE_S) == 1
    assert case.note.exists()
    assert not case.folder.exists()
    os.close(read_end)


def test_the_guard_dies(case: Case) -> None:
    """Then nobody guards, and the server goes on."""
    case.process.kill()
    case.process.wait()
    case.guarded.keep(0)
    case.guarded.done()
