"""A restore, eager and lazy, against plain ``criu restore`` of plain images on the same disk.

CRIU's images are dropped from the page cache before each round, because a restore elsewhere begins with nothing; what
is in the store is read past it anyway.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import snaplib
from snaplib.criu import find_criu
from tests.benchmarks.harness import machine, memory_hog

SUMMARY = "eager and lazy restore of a task against plain criu restore"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--sizes", default="1,2", help="task sizes in GiB (default: 1,2)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", default="/var/tmp", help="a folder on the disk to use")


def run(args: argparse.Namespace) -> None:
    """Print a table: medians in ms."""
    criu = find_criu()
    print(
        f"{machine()}; CRIU {criu.version_text}; {args.rounds} rounds, nothing cached; ms median [min-max]"
    )
    print(
        "| GiB | criu restore | eager | lazy: runs after | lazy: all there after | eager/criu | lazy runs/eager |"
    )
    print("|---|---|---|---|---|---|---|")
    for size in (float(text) for text in args.sizes.split(",")):
        with tempfile.TemporaryDirectory(dir=args.dir) as folder:
            _one(size, args.rounds, Path(folder), str(criu.path))


def _one(size: float, rounds: int, folder: Path, criu: str) -> None:
    store = snaplib.Store.open(str(folder / "store"))
    images = folder / "images"
    images.mkdir()
    with memory_hog(int(size * 2**30)) as pid:
        snapshot = snaplib.dump(snaplib.Task.attach(pid), store, leave_running=True)
        command = [criu, "dump", "-t", str(pid), "-D", str(images), "-v0", "--leave-running"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds: dict[str, list[float]] = {name: [] for name in ("criu", "eager", "runs", "there")}
    for _ in range(rounds):
        _forget(images)
        began = time.monotonic()
        subprocess.run(
            ["unshare", "-pf", "--mount-proc", criu, "restore", "-D", str(images), "-v0", "-d"],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        seconds["criu"].append(time.monotonic() - began)
        _forget(images)
        began = time.monotonic()
        task = snaplib.restore(store, snapshot.id, **_NOWHERE)
        seconds["eager"].append(time.monotonic() - began)
        _end(task)
        _forget(images)
        began = time.monotonic()
        task = snaplib.restore(store, snapshot.id, lazy=True, **_NOWHERE)
        seconds["runs"].append(time.monotonic() - began)
        assert task.session is not None
        while (task.session.folder / "lazy").exists():
            time.sleep(0.005)
        seconds["there"].append(time.monotonic() - began)
        _end(task)
    shutil.rmtree(images)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    cells = [
        f"{middle[name] * 1000:.0f} [{min(values) * 1000:.0f}-{max(values) * 1000:.0f}]"
        for name, values in seconds.items()
    ]
    print(
        f"| {size:g} | {' | '.join(cells)} | {middle['eager'] / middle['criu']:.2f} | "
        f"{middle['runs'] / middle['eager']:.2f} |",
        flush=True,
    )


_NOWHERE = {"stdin": "/dev/null", "stdout": "/dev/null", "stderr": "/dev/null"}


def _end(task: snaplib.Task) -> None:
    assert task.session is not None
    task.session.discard()


def _forget(images: Path) -> None:
    """Have the page cache forget files."""
    os.sync()
    for path in images.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    time.sleep(0.5)
