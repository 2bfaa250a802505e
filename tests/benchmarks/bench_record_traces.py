"""Records traces of real programs, all their memory armed: what replays and notebooks work on."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from snaplib.observe import TraceWriter, Watch
from snaplib.task import Task
from tests.benchmarks.programs import available, running

SUMMARY = "record traces of real programs, for replays and notebooks"

#: Different kinds: a sorter, a compiler, databases, interpreters, numeric code.
_DEFAULT = "sort,gcc,sqlite,redis,python,numpy,perl"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--programs", default=_DEFAULT, help="which, with commas between")
    parser.add_argument("--seconds", type=float, default=150.0, help="of each")
    parser.add_argument("--interval", type=float, default=1.0, help="between two profiles")
    parser.add_argument("--out", type=Path, help="the folder (default: a new one in /tmp)")


def run(args: argparse.Namespace) -> None:
    """Record one after the other."""
    out = args.out or Path(tempfile.mkdtemp(prefix="traces-"))
    out.mkdir(parents=True, exist_ok=True)
    for program in available(args.programs.split(",")):
        path = out / f"{program.name}.trace"
        path.unlink(missing_ok=True)
        with (
            tempfile.TemporaryDirectory(dir="/var/tmp") as folder,
            running(program, Path(folder)) as pid,
        ):
            time.sleep(1)
            end_s = time.monotonic() + args.seconds
            with (
                TraceWriter(path) as trace,
                Watch(Task.attach(pid), args.interval, arm="all") as watch,
            ):
                profile = watch.profile()
                while profile is not None and time.monotonic() < end_s:
                    trace.write(profile)
                    profile = watch.wait(profile, timeout_s=10)
        print(
            f"{program.name}: {path.stat().st_size / 1024:.0f} KiB, {watch.profile().dirty_basis}",
            flush=True,
        )
    print(f"in {out}")
