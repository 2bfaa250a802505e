"""What the last step costs when memory was copied ahead, against a plain ``criu dump`` of the same task.

Each round changes a share of the task's memory and then saves it both ways, in turn, the task running on.  Ours is
timed from the freeze until the snapshot is durable; plain CRIU's as the time for which the task itself says that it
stood still, and the fsync that would make its images as safe.  The *limit* is the time that the changed bytes, and no
others, take at the slower of reading, compressing and storing, each measured alone in the same run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import attrs
import numpy as np

import snaplib
from snaplib.criu import find_criu
from snaplib.store.codec import compress
from tests.benchmarks.harness import machine, spread

SUMMARY = "last step after warm copies against plain criu dump, by size, share and pattern"

_SOURCE = Path(__file__).parent.parent / "workloads/dirtier.c"
_PAGE_BYTES = 4096


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--sizes", default="1,2,4", help="GiB (default: 1,2,4)")
    parser.add_argument("--shares", default="0,1,5,20", help="%% changed (default: 0,1,5,20)")
    parser.add_argument("--patterns", default="scattered,sequential,huge")
    parser.add_argument("--mappings", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-plain", action="store_true", help="leave plain CRIU out")
    parser.add_argument("--dir", default="/var/tmp", help="a folder on the disk to write to")


def run(args: argparse.Namespace) -> None:
    """Print a table: medians in ms."""
    print(
        f"{machine()}; CRIU {find_criu().version_text}; {args.mappings} mappings; medians of {args.rounds} interleaved"
        " rounds, ms median [min-max]"
    )
    print(
        "| GiB | pattern | changed | ours: frozen until durable | task: stood still | plain criu: stood still | + fsync"
        " | ours/plain | limit | round: frozen | round: all | stored MB |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        program = Path(folder) / "dirtier"
        subprocess.run(["gcc", "-O2", "-pthread", "-o", program, _SOURCE], check=True)
        for size in (float(text) for text in args.sizes.split(",")):
            for pattern in args.patterns.split(","):
                with Dirtier(program, size, args.mappings, huge=pattern == "huge") as task:
                    _one(args, task, pattern, size, Path(folder))


class Dirtier:
    """A running ``dirtier.c``."""

    def __init__(self, program: Path, size_gib: float, mappings: int, *, huge: bool) -> None:
        self.bytes = int(size_gib * 2**30)
        self.process = subprocess.Popen(
            [program, str(self.bytes >> 20), str(mappings), *["huge"] * huge],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def __call__(self, *words: object) -> int:
        assert self.process.stdin is not None
        print(*words, file=self.process.stdin, flush=True)
        return int(self._answer())

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@attrs.define
class _Figures:
    """What was measured, in seconds, one value a round."""

    ours: list[float] = attrs.field(factory=list)
    gap: list[float] = attrs.field(factory=list)
    plain: list[float] = attrs.field(factory=list)
    durable: list[float] = attrs.field(factory=list)
    limit: list[float] = attrs.field(factory=list)
    round_frozen: list[float] = attrs.field(factory=list)
    round_all: list[float] = attrs.field(factory=list)
    stored_bytes: list[int] = attrs.field(factory=list)


def _one(
    args: argparse.Namespace, dirtier: Dirtier, pattern: str, size: float, folder: Path
) -> None:
    store = snaplib.Store.open(str(folder / "store"), create=True)
    way = "sequential" if pattern == "sequential" else "scattered"
    seed = 0
    with _copied(dirtier, store) as (task, warm):
        for percent in (float(text) for text in args.shares.split(",")):
            figures = _Figures()
            for number in range(args.rounds + 1):
                seed += 1
                _settle(warm)
                changed = dirtier(way, percent / 100, seed) * _PAGE_BYTES
                if percent:
                    figures.limit.append(_limit_s(dirtier, changed, folder))
                else:
                    figures.limit.append(0.0)
                _ours(dirtier, task, store, warm, figures)
                if not args.no_plain:
                    _plain(dirtier, folder / "plain", figures)
                if not number:  # the first warms up
                    figures = _Figures()
                _round(dirtier, warm, (way, percent / 100, seed + 1000), figures)
            _print(size, pattern, percent, figures)
    for snapshot in store.snapshots():
        store.remove(snapshot.id)


@contextlib.contextmanager
def _copied(
    dirtier: Dirtier, store: snaplib.Store
) -> Iterator[tuple[snaplib.Task, snaplib.WarmCopy]]:
    with (
        snaplib.Task.attach(dirtier.process.pid) as task,
        snaplib.WarmCopy(task, store) as warm,
    ):
        warm.copy()
        yield task, warm


def _settle(warm: snaplib.WarmCopy) -> None:
    """Copy until nothing is left, as before a notice."""
    for _ in range(3):
        if warm.copy().changed_pages < 256:
            break
    os.sync()
    time.sleep(0.3)


def _ours(
    dirtier: Dirtier,
    task: snaplib.Task,
    store: snaplib.Store,
    warm: snaplib.WarmCopy,
    figures: _Figures,
) -> None:
    reached: dict[str, float] = {}
    dirtier("gap")
    snapshot = snaplib.dump(
        task,
        store,
        warm=warm,
        leave_running=True,
        progress=lambda stage, _bytes: reached.setdefault(stage, time.monotonic()) and None,
    )
    assert "full" not in reached, snapshot.extra
    figures.ours.append(reached["committed"] - reached["frozen"])
    figures.gap.append(dirtier("gap") / 1e6)
    figures.stored_bytes.append(snapshot.extra["warm"]["final_bytes"])
    for old in store.snapshots():
        if old.id != snapshot.id:
            store.remove(old.id)


def _plain(dirtier: Dirtier, images: Path, figures: _Figures) -> None:
    shutil.rmtree(images, ignore_errors=True)
    images.mkdir()
    os.sync()
    time.sleep(0.3)
    dirtier("gap")
    options = ["-D", images, "-o", "dump.log", "-v2", "--leave-running"]
    subprocess.run(
        [find_criu().path, "dump", "-t", str(dirtier.process.pid), *options],
        check=True,
        capture_output=True,
    )
    figures.plain.append(dirtier("gap") / 1e6)
    began = time.monotonic()
    for path in images.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    figures.durable.append(figures.plain[-1] + time.monotonic() - began)
    shutil.rmtree(images)


def _round(
    dirtier: Dirtier,
    warm: snaplib.WarmCopy,
    change: tuple[object, ...],
    figures: _Figures,
) -> None:
    warm.copy()
    dirtier(*change)
    done = warm.copy()
    figures.round_frozen.append(done.frozen_s)
    figures.round_all.append(done.duration_s)


def _limit_s(dirtier: Dirtier, changed_bytes: int, folder: Path) -> float:
    """Return the time that so many bytes take at the slowest of reading, compressing and storing."""
    sample = min(changed_bytes, 64 << 20)
    maps = Path(f"/proc/{dirtier.process.pid}/maps").read_text().splitlines()
    ranges = [[int(word, 16) for word in line.split()[0].split("-")] for line in maps]
    start, _end = max(ranges, key=lambda one: one[1] - one[0])
    room = np.ones(sample, np.uint8)
    with Path(f"/proc/{dirtier.process.pid}/mem").open("rb", buffering=0) as memory:
        began = time.monotonic()
        os.preadv(memory.fileno(), [memoryview(room)], start)
        reading = time.monotonic() - began
    began = time.monotonic()
    for at in range(0, sample, 1 << 20):
        compress(memoryview(room)[at : at + (1 << 20)], 1)
    compressing = (time.monotonic() - began) / min(2, os.cpu_count() or 1)
    path = folder / "limit"
    began = time.monotonic()
    with path.open("wb", buffering=0) as file:
        file.write(room)
        os.fsync(file.fileno())
    storing = time.monotonic() - began
    path.unlink()
    return max(reading, compressing, storing) * changed_bytes / sample


def _print(size: float, pattern: str, percent: float, figures: _Figures) -> None:
    plain = figures.durable or [float("nan")]
    middle = statistics.median(a / b for a, b in zip(figures.ours, plain, strict=False))
    stood_still = spread(figures.plain) if figures.plain else "-"
    durable = spread(figures.durable) if figures.durable else "-"
    print(
        f"| {size:g} | {pattern} | {percent:g} % | {spread(figures.ours)} | {spread(figures.gap)} | {stood_still} | "
        f"{durable} | {middle:.3f} | {spread(figures.limit)} | {_fine(figures.round_frozen)} | "
        f"{spread(figures.round_all)} | {statistics.median(figures.stored_bytes) / 1e6:.1f} |",
        flush=True,
    )


def _fine(seconds: list[float]) -> str:
    middle, least, most = statistics.median(seconds), min(seconds), max(seconds)
    return f"{middle * 1000:.1f} [{least * 1000:.1f}-{most * 1000:.1f}]"
