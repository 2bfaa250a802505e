"""A restore, eager and lazy, against plain ``criu restore`` of plain images on the same disk.

CRIU's images are dropped from the page cache before each round, because a restore elsewhere begins with nothing; what
is in the store is read past it anyway.  The three take turns, and ratios are medians of those of each round.
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

import attrs

import snaplib
from snaplib.criu import find_criu
from tests.benchmarks.harness import machine, memory_hog, own_peak_mib, peak_kib, ratio, spread

SUMMARY = "eager and lazy restore of a task against plain criu restore"

_NOWHERE = {"stdin": "/dev/null", "stdout": "/dev/null", "stderr": "/dev/null"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--sizes", default="1,2", help="task sizes in GiB (default: 1,2)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", default="/var/tmp", help="a folder on the disk to use")


def run(args: argparse.Namespace) -> None:
    """Print a table: medians in ms; and where an eager restore's time and everybody's memory went."""
    criu = find_criu()
    print(
        f"{machine()}; CRIU {criu.version_text}; {args.rounds} rounds, nothing cached; ms median [min-max]"
    )
    print(
        "| GiB | criu restore | eager | lazy: runs after | lazy: all there after "
        "| eager/criu | lazy runs/eager | lazy all/eager |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for size in (float(text) for text in args.sizes.split(",")):
        with tempfile.TemporaryDirectory(dir=args.dir) as folder:
            _one(size, args.rounds, Path(folder), str(criu.path))


@attrs.define
class _Rounds:
    """What was measured, a value a round: seconds, and MiB."""

    criu: list[float] = attrs.Factory(list)
    eager: list[float] = attrs.Factory(list)
    made: list[float] = attrs.Factory(list)
    runs: list[float] = attrs.Factory(list)
    there: list[float] = attrs.Factory(list)
    eager_mib: list[float] = attrs.Factory(list)
    lazy_mib: list[float] = attrs.Factory(list)
    server_mib: list[float] = attrs.Factory(list)
    guard_mib: list[float] = attrs.Factory(list)


def _one(size: float, rounds: int, folder: Path, criu: str) -> None:
    store = snaplib.Store.open(str(folder / "store"))
    images = folder / "images"
    images.mkdir()
    with memory_hog(int(size * 2**30)) as pid:
        snapshot = snaplib.dump(snaplib.Task.attach(pid), store, leave_running=True)
        command = [criu, "dump", "-t", str(pid), "-D", str(images), "-v0", "--leave-running"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found = _Rounds()
    for _ in range(rounds):
        _forget(images)
        _plain(criu, images, found)
        _forget(images)
        _eager(store, snapshot, found)
        _forget(images)
        _lazy(store, snapshot, found)
    images_bytes = sum(path.stat().st_size for path in images.iterdir())
    shutil.rmtree(images)
    print(
        f"| {size:g} | {spread(found.criu)} | {spread(found.eager)} | {spread(found.runs)} | {spread(found.there)} | "
        f"{ratio(found.eager, found.criu):.2f} | {ratio(found.runs, found.eager):.2f} | "
        f"{ratio(found.there, found.eager):.2f} |"
    )
    made, whole = statistics.median(found.made), statistics.median(found.eager)
    filling = whole - made
    print(
        f"\n{size:g} GiB eager: {made * 1000:.0f} ms until CRIU has made the task and the first memory is there, "
        f"{filling * 1000:.0f} ms to have {snapshot.stored_bytes / 2**30:.2f} GiB read, checked, decompressed and in "
        f"the task ({snapshot.stored_bytes / filling / 2**20:.0f} MiB/s from the store), and that run; plain CRIU had "
        f"its {images_bytes / 2**30:.2f} GiB at {images_bytes / statistics.median(found.criu) / 2**20:.0f} MiB/s."
    )
    print(
        f"Most memory (VmHWM): eager {max(found.eager_mib):.0f} MiB; lazy {max(found.lazy_mib):.0f} MiB, the process "
        f"that serves the task {max(found.server_mib):.0f} MiB, its guard {max(found.guard_mib):.0f} MiB.\n",
        flush=True,
    )


def _plain(criu: str, images: Path, found: _Rounds) -> None:
    began = time.monotonic()
    # The task ends with CRIU, its namespace's init.
    subprocess.run(
        ["unshare", "-pf", "--mount-proc", criu, "restore", "-D", str(images), "-v0", "-d"],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    found.criu.append(time.monotonic() - began)


def _eager(store: snaplib.Store, snapshot: snaplib.Snapshot, found: _Rounds) -> None:
    stages: dict[str, float] = {}
    with own_peak_mib(found.eager_mib):
        began = time.monotonic()
        task = snaplib.restore(
            store,
            snapshot.id,
            progress=lambda stage, _bytes: stages.setdefault(stage, time.monotonic()) and None,
            **_NOWHERE,
        )
        found.eager.append(time.monotonic() - began)
    # Where there is nothing to fill the memory was in images.
    found.made.append(stages.get("filling", stages["restored"]) - began)
    _end(task)


def _lazy(store: snaplib.Store, snapshot: snaplib.Snapshot, found: _Rounds) -> None:
    peaks = {"server": 0, "guard": 0}
    with own_peak_mib(found.lazy_mib):
        began = time.monotonic()
        task = snaplib.restore(store, snapshot.id, lazy=True, **_NOWHERE)
        found.runs.append(time.monotonic() - began)
    assert task.session is not None
    note = task.session.folder / "lazy"
    while note.exists():
        # The last one seen counts, because it never falls.
        try:
            guard = int(note.read_text())
            peaks["guard"] = peak_kib(guard)
            for child in Path(f"/proc/{guard}/task/{guard}/children").read_text().split():
                peaks["server"] = peak_kib(int(child))
        except (OSError, ValueError):
            continue
        time.sleep(0.01)
    found.there.append(time.monotonic() - began)
    found.server_mib.append(peaks["server"] / 1024)
    found.guard_mib.append(peaks["guard"] / 1024)
    _end(task)


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
