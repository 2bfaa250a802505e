"""Whether any write is missed: programs that change their memory in every way, compared page by page.

Each program is scanned while it runs, then stopped, scanned once more and compared with a copy that was kept by the
tracker's word alone.  A page that differs and was not reported is *missing*: a dump that trusted the tracker would be
wrong.  The programs: ``churn`` maps, moves, splits, drops and writes memory of all kinds, and ``tree`` does so in
several processes that come and go; ``writer`` writes in every way from four threads; ``direct`` lets a disk write.
``-copied`` means that pages are copied as soon as they are reported, while the program runs.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from snaplib.task import Task
from snaplib.track import WriteProtect
from tests.benchmarks.harness import machine
from tests.shadow import Shadow

SUMMARY = "page checks of tracking against the truth, under churn, by seed"

_SOURCES = Path(__file__).parent.parent / "kernel/track"
_STEPS = 3

#: Source and arguments of each program; None stands for the seed.
_PROGRAMS: dict[str, tuple[str, tuple[int | None, ...]]] = {
    "churn": ("churn", (None,)),
    "churn-copied": ("churn", (None,)),
    "tree": ("churn", (None, 4)),
    "tree-copied": ("churn", (None, 4)),
    "writer": ("writer", (4, 512, None)),
    "writer-copied": ("writer", (4, 512, None)),
    "direct-copied": ("direct", (4, 2048)),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--seeds", type=int, default=11, help="seeds of each program (default: 11)")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument(
        "--checks", type=int, default=5_500_000, help="page checks in all, at least"
    )
    parser.add_argument("--programs", default=",".join(_PROGRAMS))


def run(args: argparse.Namespace) -> None:
    """Print a table by program, and end with 1 if a page was missing."""
    print(f"{machine()}; {args.seeds} seeds a program")
    print("| program | seeds | rounds | page checks | missing | seconds |")
    print("|---|---|---|---|---|---|")
    names = args.programs.split(",")
    missing: list[str] = []
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        for name in names:
            program = _compiled(_PROGRAMS[name][0], Path(folder))
            share = args.checks // (len(names) * args.seeds) + 1
            missing += _one(
                name, program, range(args.first_seed, args.first_seed + args.seeds), share
            )
    for line in missing:
        print(line)
    if missing:
        sys.exit(1)


def _compiled(name: str, folder: Path) -> Path:
    source = _SOURCES / f"{name}.c"
    options = ["-O1", "-pthread", "-Wno-unused-result"]
    subprocess.run(["gcc", *options, "-o", folder / name, source], check=True)
    return folder / name


def _one(name: str, program: Path, seeds: range, checks: int) -> list[str]:
    began = time.monotonic()
    compared = rounds = 0
    missing: list[str] = []
    for seed in seeds:
        arguments = [seed if one is None else one for one in _PROGRAMS[name][1]]
        process = subprocess.Popen(
            [str(word) for word in (program, *arguments)],
            stdout=subprocess.PIPE,
            cwd=program.parent,
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            process.stdout.readline()
            with Task.attach(process.pid) as task, WriteProtect(task) as tracker:
                tracker.arm()
                shadow = Shadow(task, tracker)
                shadow.begin()
                while shadow.compared < checks:
                    _round(name, shadow)
                    rounds += 1
                assert task.alive(), f"{name} {seed}: a system call of it failed"
                compared += shadow.compared
                missing += [f"{name}, seed {seed}: {line}" for line in shadow.missing]
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
    seconds = time.monotonic() - began
    print(
        f"| {name} | {len(seeds)} | {rounds} | {compared:,} | {len(missing)} | {seconds:.0f} |",
        flush=True,
    )
    return missing


def _round(name: str, shadow: Shadow) -> None:
    pause_s = 0.0 if name.startswith("direct") else 0.005
    for _ in itertools.repeat(None, _STEPS):
        time.sleep(pause_s)
        if name.endswith("-copied"):
            shadow.copy_ahead()
        else:
            shadow.look()
    time.sleep(pause_s)
    shadow.compare()
