"""Bad input: one line that says what to do, the right exit status, nothing changed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.conftest import Bench, wait_until


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A task to be left alone."""
    process = subprocess.Popen(
        ["sleep", "1000"],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    yield process
    assert process.poll() is None, "the task was harmed"
    process.kill()
    process.wait()


def refused(
    bench: Bench, *arguments: str | Path, status: int, says: str, **options: object
) -> None:
    """Check that a command is refused as it should be."""
    done = bench.run(*arguments, **options)
    assert done.returncode == status, done.stderr
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr


def free_pid() -> int:
    """Return a pid that no process has."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_no_such_pid(bench: Bench) -> None:
    """A pid that nobody has."""
    refused(bench, "dump", str(free_pid()), status=2, says="no process")
    assert not bench.store.exists()


def test_a_kernel_thread(bench: Bench, kernel_thread: int) -> None:
    """Kernel threads have no memory to dump."""
    refused(bench, "dump", str(kernel_thread), status=177, says="kernel thread")


def test_a_zombie(bench: Bench) -> None:
    """What has ended cannot be dumped."""
    process = subprocess.Popen(["true"])
    wait_until(
        lambda: "Z" in Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2][:3],
        "a zombie",
    )
    refused(bench, "dump", str(process.pid), status=177, says="zombie")
    process.wait()


def test_our_own_parent(bench: Bench) -> None:
    """Freezing who waits for us would freeze us all."""
    refused(bench, "dump", str(os.getpid()), status=177, says="")


def test_not_ours(bench: Bench, sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """Without root nothing of somebody else's can be dumped, and the message says so."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 65534, 65534)
    env = {
        **bench.env,
        "SNAPLIB_RUNTIME_DIR": str(home / "runtime"),
        "SNAPLIB_STORE": str(home / "store"),
    }
    refused(
        bench,
        "dump",
        str(sleeper.pid),
        status=177,
        says="root",
        user=65534,
        group=65534,
        extra_groups=[],
        env=env,
    )
    refused(
        bench,
        "run",
        "--",
        "true",
        status=177,
        says="root",
        user=65534,
        group=65534,
        extra_groups=[],
        env=env,
    )


def test_a_folder_that_is_no_store(bench: Bench, sleeper: subprocess.Popen[bytes]) -> None:
    """Somebody's folder is not written to."""
    (bench.folder / "photos").mkdir()
    (bench.folder / "photos/cat.jpg").write_bytes(b"meow")
    refused(
        bench, "dump", str(sleeper.pid), "--store", "photos", status=2, says="not a snaplib store"
    )
    refused(bench, "run", "--store", "photos", "--", "true", status=2, says="not a snaplib store")
    refused(bench, "snapshots", "--store", "nowhere", status=2, says="not a snaplib store")
    assert [path.name for path in (bench.folder / "photos").iterdir()] == ["cat.jpg"]
    assert not (bench.folder / "nowhere").exists()


def test_a_store_of_a_newer_version(bench: Bench, sleeper: subprocess.Popen[bytes]) -> None:
    """What we do not know we do not touch."""
    bench.store.mkdir()
    mark = bench.store / "snaplib-store.json"
    mark.write_text(json.dumps({"format": 999}))
    refused(bench, "dump", str(sleeper.pid), status=2, says="upgrade snaplib")
    refused(bench, "run", "--", "true", status=2, says="upgrade snaplib")
    assert json.loads(mark.read_text()) == {"format": 999}


def test_an_unknown_address(bench: Bench, sleeper: subprocess.Popen[bytes]) -> None:
    """A scheme that means nothing."""
    refused(bench, "dump", str(sleeper.pid), "--store", "ftp://somewhere/x", status=2, says="ftp")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_store(bench: Bench, small_disk: Path) -> None:
    """The dump fails, the task runs on to the end of the window, and nothing half is left."""
    program = """
import os, time
memory = os.urandom(64 << 20)
while True:
    print("tick", flush=True)
    time.sleep(0.05)
"""
    out = bench.folder / "out"
    with out.open("wb") as stream, (bench.folder / "err").open("wb") as errors:
        process = bench.start(
            [
                "run",
                "--store",
                small_disk / "store",
                "--window",
                "3",
                "--",
                sys.executable,
                "-c",
                program,
            ],
            stdout=stream,
            stderr=errors,
        )
    wait_until(lambda: out.exists() and b"tick" in out.read_bytes(), "the task to run")
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    status = process.wait(60)
    said = (bench.folder / "err").read_text()
    assert status == 175, said
    assert "room" in said
    assert time.monotonic() - began > 2.5
    size = out.stat().st_size
    wait_until(lambda: out.stat().st_size > size, "the task to run on after the failed dump")
    assert not list((small_disk / "store").glob("manifests/*/*")), "half a snapshot"
    assert sum(path.stat().st_size for path in small_disk.rglob("*") if path.is_file()) < 1 << 20, (
        "debris"
    )


def test_a_read_only_store(
    bench: Bench, small_disk: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    """Said before the task is touched."""
    assert (
        bench.run(
            "dump", str(sleeper.pid), "--leave-running", "--store", small_disk / "store"
        ).returncode
        == 0
    )
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    refused(
        bench,
        "dump",
        str(sleeper.pid),
        "--store",
        small_disk / "store",
        status=2,
        says="cannot be written",
    )


def test_a_runtime_folder_without_room(bench: Bench, small_disk: Path) -> None:
    """Said before anything is started, with what to do."""
    full = small_disk / "full"
    with full.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    env = {**bench.env, "SNAPLIB_RUNTIME_DIR": str(small_disk)}
    refused(bench, "run", "--", "touch", "started", status=2, says="$SNAPLIB_RUNTIME_DIR", env=env)
    assert not (bench.folder / "started").exists()


@pytest.mark.parametrize(("criu", "says"), [("/nowhere/criu", "/nowhere/criu"), ("old", "3.17")])
def test_criu_missing_or_too_old(
    bench: Bench, tmp_path: Path, sleeper: subprocess.Popen[bytes], criu: str, says: str
) -> None:
    """Said before the task is touched or the command is started."""
    if criu == "old":
        old = tmp_path / "criu-old"
        old.write_text("#!/bin/sh\necho Version: 3.17.1\n")
        old.chmod(0o755)
        criu = str(old)
    env = {**bench.env, "SNAPLIB_CRIU": criu}
    refused(bench, "dump", str(sleeper.pid), status=177, says=says, env=env)
    refused(bench, "run", "--", "touch", "started", status=177, says=says, env=env)
    assert not (bench.folder / "started").exists()


def test_a_snapshot_that_is_not_there(bench: Bench, sleeper: subprocess.Popen[bytes]) -> None:
    """Restoring what was never saved."""
    assert bench.run("dump", str(sleeper.pid), "--leave-running").returncode == 0
    refused(bench, "restore", "20200101", status=2, says="no snapshot")
