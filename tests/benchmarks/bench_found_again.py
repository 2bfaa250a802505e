"""The first copy of a task that was restored: what is found in its last snapshot, beside a copy of everything.

A task's memory is copied and dumped; some of it is changed from outside; then it is copied as the next run does it,
which knows nothing but what is in the store. Beside it the same without looking into the store.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import snaplib
from snaplib.store import PAGE_BYTES, PageLogOptions, SnapshotWriter, Store
from snaplib.warm import WarmCopy
from tests.benchmarks.harness import interleaved, machine, memory_hog, spread

SUMMARY = "the first copy of a restored task: what is found in its last snapshot"

_MIB = 1 << 20


class _Blind(Store):
    """A store in which nothing is looked for."""

    def begin(self, *args: Any, find: bool = False, **options: Any) -> SnapshotWriter:
        """Begin a snapshot."""
        del find
        return super().begin(*args, **options)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--mib", type=int, default=1024, help="the task's memory (default: 1024)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", default="/var/tmp", help="a folder on the disk to write to")


def run(args: argparse.Namespace) -> None:
    """Print a table: what is changed, and bytes, milliseconds and CPU milliseconds of both copies."""
    print(f"{machine()}; {args.rounds} interleaved rounds; ms median [min-max]")
    print("| changed | stored | copied in | CPU | stored blindly | copied in | CPU |")
    print("|---|---|---|---|---|---|---|")
    for name, share, run_pages in (
        ("nothing", 0.0, 1),
        ("1 %, single pages", 0.01, 1),
        ("10 %, in runs of 4 MiB", 0.1, 1024),
    ):
        with (
            tempfile.TemporaryDirectory(dir=args.dir) as folder,
            memory_hog(args.mib * _MIB) as pid,
        ):
            _one(name, Path(folder), pid, (share, run_pages), args.rounds)


def _one(name: str, folder: Path, pid: int, changed: tuple[float, int], rounds: int) -> None:
    task = snaplib.Task.attach(pid)
    store, blind = Store.open(folder), _Blind.open(folder)
    # What is compressed depends on how busy disk and codec are, but for this.
    options = PageLogOptions(codec="zstd")
    with WarmCopy(task, store, options=options) as warm:
        warm.copy()
        snaplib.dump(task, store, warm=warm, leave_running=True)
    _change(pid, *changed)
    stored: dict[str, int] = {}
    cpu: dict[str, list[float]] = {"found": [], "blind": []}

    def copy(where: Store, what: str) -> None:
        begun = time.process_time()
        with WarmCopy(task, where, options=options) as warm:
            warm.copy()
            stored[what] = sum(warm.writer._segments.sizes())
        cpu[what].append(time.process_time() - begun)

    seconds = interleaved(
        rounds, {"found": lambda: copy(store, "found"), "blind": lambda: copy(blind, "blind")}
    )
    row = [name]
    for what in ("found", "blind"):
        row += [f"{stored[what] / _MIB:.1f} MiB", spread(seconds[what]), spread(cpu[what][1:])]
    print("| " + " | ".join(row) + " |", flush=True)
    shutil.rmtree(folder / "objects", ignore_errors=True)


def _change(pid: int, share: float, run_pages: int) -> None:
    """Write into a task's largest mapping from outside."""
    ranges = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        begin, end = (int(text, 16) for text in line.split()[0].split("-"))
        ranges.append((end - begin, begin))
    size, begin = max(ranges)
    runs = size // PAGE_BYTES // run_pages
    with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
        for one in random.Random(7).sample(range(runs), int(runs * share)):
            os.pwrite(
                memory.fileno(),
                os.urandom(run_pages * PAGE_BYTES),
                begin + one * run_pages * PAGE_BYTES,
            )
