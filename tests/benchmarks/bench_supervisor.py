"""What a supervisor costs while nothing happens, and how soon after a notice the dump begins."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from snaplib.testing.metadata import FakeAws, FakeAzure, FakeGcp
from tests.benchmarks.harness import machine
from tests.system.conftest import Bench, wait_until

SUMMARY = "an idle supervisor's CPU and memory, and the time from a notice to the dump"

#: Source -> the seconds between two questions; 0 where it is heard at once.
SOURCES = {"signal": 0.0, "file": 0.5, "aws": 2.0, "gcp": 0.0, "azure": 1.0}

#: Name -> MiB of memory, and pages that it changes a second.
TASKS = {"sleeps": (16, 0), "sleeps, 512 MiB": (512, 0), "changes 50 pages/s of 512 MiB": (512, 50)}
_TASK = """
import os, sys, time
size, pages = int(sys.argv[1]) << 20, int(sys.argv[2])
memory = bytearray(os.urandom(1 << 20) * (size >> 20))
number = 0
while True:
    for _ in range(max(1, pages // 10)):
        number += 1
        memory[number * 7919 * 4096 % size] = number & 255
    time.sleep(0.1 if pages else 1000)
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--seconds", type=float, default=90.0, help="how long to look at the idle")
    parser.add_argument(
        "--settle", type=float, default=60.0, help="after the first copy, before that"
    )
    parser.add_argument("--rounds", type=int, default=5, help="how many notices for each source")


def run(args: argparse.Namespace) -> None:
    """Measure, and print the tables."""
    print(machine())
    print(f"\n| task | source | CPU over {args.seconds:g} s | memory | its init's |")
    print("|---|---|---|---|---|", flush=True)
    for line in idle(args.settle, args.seconds):
        print(line, flush=True)
    print("\n| source | asked every | notice to dump: median | worst |")
    print("|---|---|---|---|")
    for source, interval_s in SOURCES.items():
        delays_s = [
            notice_to_dump_s(source, 3 + random.uniform(0, interval_s)) for _ in range(args.rounds)
        ]
        every = f"{interval_s:g} s" if interval_s else "at once"
        print(
            f"| {source} | {every} | {statistics.median(delays_s) * 1000:.0f} ms | "
            f"{max(delays_s) * 1000:.0f} ms |",
            flush=True,
        )


class Run:
    """A supervised task.

    Args:
        source: Who gives notice.
        task: Which of `TASKS`.
        stack: Ends it.
    """

    def __init__(self, source: str, task: str, stack: contextlib.ExitStack) -> None:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="supervisor-", dir="/var/tmp")
        )
        self.bench = Bench(Path(folder))
        stack.callback(self.bench.tidy)
        self.events = self.bench.folder / "events"
        going = self.bench.folder / "going"
        word, environment, self.announce = _source(source, going, stack)
        program = [sys.executable, "-I", "-S", "-c", _TASK, *map(str, TASKS[task])]
        self.process = self.bench.start(
            ["run", "--reclaim", word, "--events", self.events, "-q", "--", *program],
            env={**self.bench.env, **environment},
        )
        self.bench.wait_for_task()

    def told(self, event: str) -> list[dict[str, Any]]:
        """Return the events of that name so far."""
        text = self.events.read_text() if self.events.exists() else ""
        lines = [line for line in text.splitlines() if line.endswith("}")]
        return [one for one in map(json.loads, lines) if one["event"] == event]


def idle(settle_s: float, seconds: float) -> list[str]:
    """Return a line for each supervisor; all are watched at once, for none of them does much."""
    cases = [("signal", task) for task in TASKS]
    cases += [(source, "sleeps") for source in SOURCES if source != "signal"]
    with contextlib.ExitStack() as stack:
        runs = [Run(source, task, stack) for source, task in cases]
        for one in runs:
            wait_until(
                lambda one=one: any(not copy["left_bytes"] for copy in one.told("copied")),
                "the first copy",
                300,
            )
        time.sleep(settle_s)
        before_s = [_cpu_s(one.process.pid) for one in runs]
        time.sleep(seconds)
        lines = []
        for (source, task), one, cpu_s in zip(cases, runs, before_s, strict=True):
            share = (_cpu_s(one.process.pid) - cpu_s) / seconds
            memory_mib, init_mib = (
                _rss_bytes(pid) / 2**20 for pid in (one.process.pid, one.bench.sessions()[0])
            )
            lines.append(
                f"| {task} | {source} | {share:.2%} | {memory_mib:.0f} MiB | {init_mib:.0f} MiB |"
            )
    return lines


def notice_to_dump_s(source: str, after_s: float) -> float:
    """Return the seconds from a notice to the dump."""
    with contextlib.ExitStack() as stack:
        one = Run(source, "sleeps", stack)
        time.sleep(after_s)
        began_s = time.time()
        if one.announce is None:
            one.process.send_signal(signal.SIGUSR1)
        else:
            one.announce()
        one.process.wait(60)
        (dumping,) = one.told("dumping")
    moment_s: float = dumping["time_s"]
    return moment_s - began_s


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
