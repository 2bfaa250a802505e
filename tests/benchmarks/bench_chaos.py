"""A task that is interrupted a hundred times and more, at random moments and in every way there is."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from tests.system.chaos import Chaos
from tests.system.conftest import Bench

SUMMARY = "interruptions at random moments: is the output right, and are the statuses"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--interruptions", type=int, default=120)
    parser.add_argument("--seed", type=int, default=None, help="(default: the time)")


def run(args: argparse.Namespace) -> None:
    """Interrupt, and print what happened."""
    seed = int(time.time()) if args.seed is None else args.seed
    with tempfile.TemporaryDirectory(prefix="chaos-", dir="/var/tmp") as folder:
        bench = Bench(Path(folder))
        try:
            chaos = Chaos(bench, seed)
            began = time.monotonic()
            for _ in range(args.interruptions):
                chaos.interrupt()
            lines = chaos.finish()
            tell(chaos, args.interruptions, lines, time.monotonic() - began)
        finally:
            bench.tidy()


def tell(chaos: Chaos, interruptions: int, lines: int, seconds: float) -> None:
    """Print what happened."""
    print(
        f"seed {chaos.seed}: {interruptions} interruptions in {seconds:.0f} s; "
        f"{lines} lines, all right"
    )
    for way, count in chaos.counts.most_common():
        print(f"  {count:4d}  {way}")
    print("exit statuses: " + ", ".join(f"{end}: {n}" for end, n in sorted(chaos.ends.items())))
    print("events: " + ", ".join(f"{name} {n}" for name, n in chaos.names().most_common()))
    latencies = sorted(chaos.latencies_s())
    if latencies:
        print(
            f"notice heard to dump begun: median {statistics.median(latencies) * 1000:.1f} ms, "
            f"worst {latencies[-1] * 1000:.0f} ms of {len(latencies)}"
        )
