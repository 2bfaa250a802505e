"""What is lost when a machine goes before its window is over, in the midst of the dump."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.benchmarks.harness import machine
from tests.system.conftest import Bench
from tests.system.cutoff import LINES_PER_S, SLOW, cut_off

SUMMARY = "a machine that goes early: the work that is lost, beside what was promised"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--mib", type=int, default=1024, help="the task's memory")
    parser.add_argument("--every", type=float, default=15.0, help="seconds between two snapshots")
    parser.add_argument(
        "--after", default="6,39", help="seconds from the notice until the machine goes"
    )
    parser.add_argument("--window", type=float, default=120.0, help="the window that is announced")


def run(args: argparse.Namespace) -> None:
    """Measure, and print the table."""
    print(machine())
    print(
        f"{args.mib} MiB of memory, {LINES_PER_S} pages changed a second; announced {args.window:g} s, and from then "
        f"on the store takes {SLOW / 1e3:g} kB/s"
    )
    print(
        "\n| the machine went after | promised at most | work lost of before the notice | of after it | resumed in |"
    )
    print("|---|---|---|---|---|", flush=True)
    for after_s in map(float, args.after.split(",")):
        with tempfile.TemporaryDirectory(prefix="cut-off-", dir="/var/tmp") as folder:
            bench = Bench(Path(folder))
            try:
                found = cut_off(
                    bench, mib=args.mib, every_s=args.every, after_s=after_s, window_s=args.window
                )
            finally:
                bench.tidy()
        print(
            f"| {found.lasted_s:.1f} s | {found.promised_s:g} s | {found.lost_s:.2f} s | "
            f"{found.after_lines / LINES_PER_S:.2f} s | {found.restore_s:.2f} s |",
            flush=True,
        )
