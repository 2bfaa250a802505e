"""What a supervisor costs while nothing happens, and how soon after a notice the dump begins."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from snaplib.testing.metadata import FakeAws, FakeAzure, FakeGcp
from tests.benchmarks.harness import machine
from tests.system.conftest import Bench, wait_until

SUMMARY = "an idle supervisor's CPU and memory, and the time from a notice to the dump"

#: Source -> its name on the command line, and the seconds between two questions.
SOURCES = {"signal": 0.0, "file": 0.5, "aws": 2.0, "gcp": 0.0, "azure": 1.0}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to look at each idle")
    parser.add_argument("--rounds", type=int, default=5, help="how many notices for each source")


def run(args: argparse.Namespace) -> None:
    """Measure, and print the table."""
    print(machine())
    print()
    print("| source | idle CPU | memory | asked every | notice to dump: median | worst |")
    print("|---|---|---|---|---|---|")
    for source, interval_s in SOURCES.items():
        delays_s = []
        cpu = rss_bytes = 0.0
        for number in range(args.rounds):
            idle_s = args.seconds if number == 0 else 3 + random.uniform(0, interval_s)
            found = measure(source, idle_s)
            delays_s.append(found[2])
            if number == 0:
                cpu, rss_bytes = found[:2]
        every = f"{interval_s:g} s" if interval_s else "at once"
        print(
            f"| {source} | {cpu:.2%} | {rss_bytes / 2**20:.0f} MiB | {every} | "
            f"{statistics.median(delays_s) * 1000:.0f} ms | {max(delays_s) * 1000:.0f} ms |",
            flush=True,
        )


def measure(source: str, idle_s: float) -> tuple[float, float, float]:
    """Return CPU share and resident bytes of an idle supervisor, and the seconds from a notice to the dump."""
    with tempfile.TemporaryDirectory(prefix="supervisor-", dir="/var/tmp") as name:
        bench = Bench(Path(name))
        going, events = bench.folder / "going", bench.folder / "events"
        with contextlib.ExitStack() as stack:
            stack.callback(bench.tidy)
            word, environment, announce = _source(source, going, stack)
            process = bench.start(
                ["run", "--reclaim", word, "--events", events, "-q", "--", "sleep", "1000"],
                env={**bench.env, **environment},
            )
            bench.wait_for_task()
            # The first look at what a dump would fail at is over by then.
            time.sleep(5.0)
            before_s = _cpu_s(process.pid)
            time.sleep(idle_s)
            cpu = (_cpu_s(process.pid) - before_s) / idle_s
            rss_bytes = _rss_bytes(process.pid)
            began_s = time.time()
            if announce is None:
                process.send_signal(signal.SIGUSR1)
            else:
                announce()
            wait_until(lambda: '"dumping"' in events.read_text(), "the dump to begin")
            process.wait(60)
            told = [json.loads(line) for line in events.read_text().splitlines()]
            dumping_s = next(one["time_s"] for one in told if one["event"] == "dumping")
    return cpu, rss_bytes, dumping_s - began_s


def _source(
    source: str, going: Path, stack: contextlib.ExitStack
) -> tuple[str, dict[str, str], Callable[[], object] | None]:
    if source == "aws":
        aws = stack.enter_context(FakeAws())
        return "aws", aws.environment, aws.announce
    if source == "gcp":
        gcp = stack.enter_context(FakeGcp())
        return "gcp", gcp.environment, gcp.announce
    if source == "azure":
        azure = stack.enter_context(FakeAzure())
        return "azure", azure.environment, azure.announce
    if source == "file":
        return f"file={going}", {}, going.touch
    return "signal", {}, None


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_bytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024.0
    return 0.0
