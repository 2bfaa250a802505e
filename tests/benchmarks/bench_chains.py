"""Chains of incremental snapshots of programs that change their memory in every way, restored and compared.

While the task stands still for a snapshot, all memory of all of its processes is read; when it has been restored, and
before it runs on, it is read again.  Every byte must be the same, but for the 32 bytes of each thread that the kernel
itself writes (struct rseq).
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from snaplib.store import Store
from tests.benchmarks.harness import machine
from tests.chains import launched, run_chain

SUMMARY = "chains of incremental snapshots, restored memory against what was saved"

_SOURCES = Path(__file__).parent.parent / "kernel/track"

#: Source and arguments of each program; None stands for the seed.
_PROGRAMS: tuple[tuple[str, str, tuple[int | None, ...]], ...] = (
    ("churn", "churn", (None,)),
    ("tree of churns", "churn", (None, 3)),
    ("writer", "writer", (3, 1024, None)),
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--chains", type=int, default=51, help="how many (default: 51)")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--deepest", type=int, default=8, help="snapshots of a chain, at most")


def run(args: argparse.Namespace) -> None:
    """Print a table by program, and end with 1 if anything differed or was not incremental."""
    print(f"{machine()}; {args.chains} chains of 1 to {args.deepest} snapshots")
    counts = {name: [0, 0, 0, 0, 0] for name, _, _ in _PROGRAMS}
    wrong: list[str] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name, pytest.MonkeyPatch.context() as patch:
        top = Path(name)
        patch.setenv("SNAPLIB_RUNTIME_DIR", str(top / "runtime"))
        patch.setenv("SNAPLIB_SCRATCH_DIR", name)
        for source in {source for _, source, _ in _PROGRAMS}:
            options = ["-O1", "-pthread", "-Wno-unused-result"]
            subprocess.run(
                ["gcc", *options, "-o", top / source, _SOURCES / f"{source}.c"], check=True
            )
        for number in range(args.chains):
            seed = args.first_seed + number
            title, source, template = _PROGRAMS[number % len(_PROGRAMS)]
            chance = random.Random(seed)
            folder = top / f"chain-{seed}"
            folder.mkdir()
            store = Store.open(str(folder / "store"), create=True)
            arguments = [seed if one is None else one for one in template]
            with launched(folder, top / source, *arguments) as task:
                depth = chance.randrange(1, args.deepest + 1)
                chain = run_chain(task, store, depth, chance, patch)
            shutil.rmtree(folder)
            count = counts[title]
            count[0] += 1
            count[1] += len(chain.levels)
            count[2] += chain.restored
            count[3] += chain.compared_pages
            count[4] += len(chain.wrong)
            wrong += [f"{title}, seed {seed}: {one}" for one in [*chain.wrong, *chain.full]]
            print(f"  seed {seed}: {title}, {depth} deep", file=sys.stderr, flush=True)
    print("| program | chains | snapshots | restores | pages compared | pages that differ |")
    print("|---|---|---|---|---|---|")
    for title, count in counts.items():
        print(f"| {title} | " + " | ".join(f"{one:,}" for one in count) + " |")
    print(f"{time.monotonic() - began:.0f} s")
    for line in wrong:
        print(line)
    if wrong:
        sys.exit(1)
