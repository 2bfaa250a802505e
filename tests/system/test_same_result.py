"""An interrupted run ends with the bytes of an uninterrupted one."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.system.conftest import WORKLOADS, Bench, wait_until

SAVED = 75
PYTHON = sys.executable


def whole_run(command: Sequence[str], folder: Path) -> tuple[bytes, float]:
    """Run a command without snaplib; return what it wrote and how long it took."""
    began = time.monotonic()
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=True
    )
    return done.stdout, time.monotonic() - began


def interrupted(bench: Bench, command: Sequence[str], marks: Sequence[int]) -> bytes:
    """Run a command under snaplib, give notice each time its output has grown to a mark, and resume it.

    Returns everything that all the runs together wrote to standard output.
    """
    written = b""
    for mark in marks:
        part = bench.folder / f"out-{mark}"
        with part.open("wb") as out:
            process = bench.start(["run", "--", *command], stdout=out)
            grow_to(mark - len(written), part, process)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == SAVED
        assert bench.sessions() == []
        written += part.read_bytes()
    done = bench.run("run", "--", *command, text=False)
    assert done.returncode == 0, done.stderr
    return written + done.stdout


def grow_to(size: int, path: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until a file has a size, or who writes it has ended."""
    wait_until(
        lambda: path.stat().st_size >= size or process.poll() is not None, f"{size} bytes in {path}"
    )


def test_python_with_threads_and_open_sqlite(bench: Bench) -> None:
    """Threads, a queue between them and a database in mid-transaction, saved three times."""
    rows = 3000
    command = [PYTHON, str(WORKLOADS / "threads_sqlite.py"), "digest.db", str(rows)]
    reference = bench.folder / "reference"
    reference.mkdir()
    expected, _seconds = whole_run(command, reference)
    marks = [len(expected) // 4, len(expected) // 2, 3 * len(expected) // 4]

    assert interrupted(bench, command, marks) == expected
    ours, theirs = (dump_of(folder / "digest.db") for folder in (bench.folder, reference))
    assert ours == theirs


def dump_of(database: Path) -> bytes:
    """Return a database as SQL: rows come in the order of their key, so thread timing does not show."""
    return subprocess.run(
        ["sqlite3", database, "select * from digest order by thread, row"],
        check=True,
        capture_output=True,
    ).stdout


def test_pipeline_of_five_programs(bench: Bench) -> None:
    """A tree with pipes between its members, data under way in all of them."""
    line = (
        "seq 1 3000000 | sed 's/7/seven/' | awk '{ print length($0) % 97, $0 }' | "
        "grep -v '^13 ' | sort -s -n -k1,1 -S 20M -T . > sorted.txt"
    )
    command = ["sh", "-c", line]
    reference = bench.folder / "reference"
    reference.mkdir()
    _out, seconds = whole_run(command, reference)

    process = bench.start(["run", "--", *command])
    for share in (0.3, 0.6):
        bench.wait_for_task()
        time.sleep(seconds * share / 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == SAVED, share
        assert bench.sessions() == []
        process = bench.start(["run", "--", *command])
    assert process.wait(100) == 0

    digests = [
        hashlib.sha256((folder / "sorted.txt").read_bytes()).hexdigest()
        for folder in (bench.folder, reference)
    ]
    assert digests[0] == digests[1]
    assert not list(bench.folder.glob("sort*[!t]")), "sort's temporary files are gone"


def test_two_gigabytes_that_check_every_page(bench: Bench) -> None:
    """Private, shared and deleted-file memory, each page verified each round."""
    command = [PYTHON, str(WORKLOADS / "memory_pages.py"), "2048", "2"]
    process = bench.start(["run", "--", *command], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    first, _ = process.communicate(timeout=100)
    assert process.returncode == SAVED
    done = bench.run("run", "--", *command)

    assert done.returncode == 0, done.stderr
    lines = (first.decode() + done.stdout).splitlines()
    assert [line.split(":")[0] for line in lines] == ["round 1", "round 2"]
    assert all(line.endswith(" 0 bad") for line in lines)
    assert all(int(line.split()[2]) == (2048 << 20) // 4096 for line in lines)


@pytest.mark.parametrize("how", ["pipe", "truncated again", "appended", "other file"])
def test_output_arrives_exactly_once(bench: Bench, how: str) -> None:
    """Whatever the output goes to, and wherever the runs are cut, every line arrives once and in order."""
    lines = 40_000
    command = [PYTHON, str(WORKLOADS / "numbered.py"), str(lines), "0.0005"]
    expected = b"".join(b"line %09d\n" % number for number in range(1, lines + 1))
    out = bench.folder / "out"
    parts, status, runs = b"", SAVED, 0
    while status == SAVED:
        runs += 1
        if how == "pipe":
            process = bench.start(
                ["run", "--", *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        else:
            target = bench.folder / f"out-{runs}" if how == "other file" else out
            with target.open("ab" if how == "appended" else "wb") as stream:
                process = bench.start(
                    ["run", "--", *command], stdout=stream, stderr=subprocess.DEVNULL
                )
        if runs <= 3:
            bench.wait_for_task()
            time.sleep(0.4)
            process.send_signal(signal.SIGTERM)
        if how == "pipe":
            parts += process.communicate(timeout=100)[0]
        status = process.wait(100)
        if how == "other file":
            parts += target.read_bytes()
    assert status == 0
    assert runs == 4, "three of the runs were to be saved"
    assert (parts if how in ("pipe", "other file") else out.read_bytes()) == expected


def test_standard_error_keeps_its_order_with_output(bench: Bench) -> None:
    """With 2>&1 both streams are one file, and stay in order."""
    lines = 3000
    command = [PYTHON, "-u", str(WORKLOADS / "numbered.py"), str(lines), "0.005"]
    reference = subprocess.run(
        [PYTHON, "-u", str(WORKLOADS / "numbered.py"), str(lines)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
    ).stdout
    log = bench.folder / "log"
    for number in range(2):
        with log.open("ab") as stream:
            process = bench.start(["run", "-q", "--", *command], stdout=stream, stderr=stream)
        if number == 0:
            bench.wait_for_task()
            time.sleep(0.5)
            process.send_signal(signal.SIGUSR1)
        assert process.wait(60) == (SAVED, 0)[number]
    assert log.read_bytes() == reference


def test_terminal(bench: Bench) -> None:
    """A task on a terminal is saved on one and resumed on another."""
    lines = 4000
    command = [PYTHON, str(WORKLOADS / "numbered.py"), str(lines), "0.004"]
    seen = b""
    for number in range(2):
        master, slave = os.openpty()
        process = bench.start(
            ["run", "-q", "--", *command], stdin=slave, stdout=slave, stderr=subprocess.DEVNULL
        )
        os.close(slave)
        asked = False
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:  # EIO: the last one to hold the terminal is gone
                break
            seen += data
            if number == 0 and not asked and len(seen) > 20_000:
                asked = True
                process.send_signal(signal.SIGTERM)
        assert process.wait(60) == (SAVED, 0)[number]
        os.close(master)
    assert seen.replace(b"\r\n", b"\n") == b"".join(b"line %09d\n" % n for n in range(1, lines + 1))
