"""A full dump to a local store against plain ``criu dump`` to the same disk.

Ours is durable when it returns (every object fsynced); plain CRIU leaves its images in the page cache, so it is timed
both without and with the fsync that would make it as safe.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import snaplib
from snaplib.criu import find_criu
from tests.benchmarks.harness import interleaved, machine, memory_hog, own_peak_mib, ratio, spread

SUMMARY = "full dump of 1, 2 and 4 GB tasks against plain criu dump"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--sizes", default="1,2,4", help="task sizes in GiB (default: 1,2,4)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", default="/var/tmp", help="a folder on the disk to write to")


def run(args: argparse.Namespace) -> None:
    """Print a table: medians in ms, and ratios pair by pair."""
    criu = find_criu()
    print(
        f"{machine()}; CRIU {criu.version_text}; {args.rounds} interleaved rounds; ms median [min-max]"
    )
    print(
        "| GiB | snaplib (durable) | criu | criu + fsync | stored | snaplib/criu | snaplib/(criu + fsync) "
        "| most memory of ours |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for size in (float(text) for text in args.sizes.split(",")):
        with (
            tempfile.TemporaryDirectory(dir=args.dir) as folder,
            memory_hog(int(size * 2**30)) as pid,
        ):
            _one(size, args.rounds, Path(folder), pid, str(criu.path))


def _one(size: float, rounds: int, folder: Path, pid: int, criu: str) -> None:
    task = snaplib.Task.attach(pid)
    store = snaplib.Store.open(str(folder / "store"), create=True)
    stored: list[int] = []
    peaks_mib: list[float] = []

    def ours() -> None:
        with own_peak_mib(peaks_mib):
            snapshot = snaplib.dump(task, store, leave_running=True)
        stored.append(snapshot.stored_bytes)

    def plain() -> None:
        (folder / "plain").mkdir()
        _criu_dump(criu, pid, folder / "plain")

    def tidy() -> None:
        shutil.rmtree(folder / "plain", ignore_errors=True)
        for snapshot in store.snapshots():
            store.remove(snapshot.id)

    def durable() -> None:
        plain()
        for path in (folder / "plain").iterdir():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)

    seconds = interleaved(rounds, {"ours": ours, "plain": plain, "durable": durable}, tidy=tidy)
    print(
        f"| {size:g} | {spread(seconds['ours'])} | {spread(seconds['plain'])} | {spread(seconds['durable'])} | "
        f"{stored[-1] / 2**30:.2f} GiB | {ratio(seconds['ours'], seconds['plain']):.2f} | "
        f"{ratio(seconds['ours'], seconds['durable']):.2f} | {max(peaks_mib):.0f} MiB |",
        flush=True,
    )


def _criu_dump(criu: str, pid: int, images: Path) -> None:
    subprocess.run(
        [
            criu,
            "dump",
            "-t",
            str(pid),
            "-D",
            str(images),
            "-o",
            "dump.log",
            "-v2",
            "--leave-running",
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
