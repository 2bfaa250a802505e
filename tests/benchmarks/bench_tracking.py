"""What tracking dirty pages costs: the tracker's own time, the task's frozen time, the task's CPU time."""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

from snaplib.task import Task
from snaplib.track import WriteProtect
from tests.benchmarks.harness import machine, memory_hog

SUMMARY = "arming and scanning, and what both cost the task"

_LOGGER = Path(__file__).parent.parent / "workloads" / "page_logger.c"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--sizes", default="1,4", help="task sizes in GiB (default: 1,4)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rates", default="2000,20000,100000", help="pages written a second")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each window of CPU time")


def run(args: argparse.Namespace) -> None:
    """Print two tables."""
    print(f"{machine()}; {args.rounds} rounds; ms median [min-max]")
    print("| GiB idle | attach | arm | frozen | scan | scan, standing still | frozen |")
    print("|---|---|---|---|---|---|---|")
    for size in (float(text) for text in args.sizes.split(",")):
        with memory_hog(int(size * 2**30)) as pid:
            _own_time(size, pid, args.rounds)
    print(f"\n512 MiB; CPU time of the task, scanned each second, windows of {args.seconds:g} s")
    print("| writes a second | not tracked | armed | 1/8 armed | armed costs | 1/8 costs |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "page_logger"
        subprocess.run(["gcc", "-O2", "-o", program, _LOGGER], check=True)
        for rate in map(int, args.rates.split(",")):
            with _logger(program, Path(folder) / "log", rate) as pid:
                _cost(rate, pid, args.rounds, args.seconds)


def _own_time(size: float, pid: int, rounds: int) -> None:
    attach, arm, arm_frozen, scan, still, still_frozen = ([] for _ in range(6))
    with Task.attach(pid) as task:
        with task.frozen(5.0):
            pass  # what freezes is started once a task
        for _ in range(rounds):
            began = time.monotonic()
            with WriteProtect(task) as tracker:
                attach.append(time.monotonic() - began)
                report = tracker.arm()
                arm.append(report.duration_s)
                arm_frozen.append(report.frozen_s)
                scan.append(tracker.scan().duration_s)
                found = tracker.scan(still=True)
                still.append(found.duration_s)
                still_frozen.append(found.frozen_s)
    columns = (attach, arm, arm_frozen, scan, still, still_frozen)
    print(f"| {size:g} | " + " | ".join(_fine(column) for column in columns) + " |", flush=True)


def _cost(rate: int, pid: int, rounds: int, window_s: float) -> None:
    ways: dict[str, Callable[[Task], contextlib.AbstractContextManager[object]]] = {
        "plain": lambda _: contextlib.nullcontext(),
        "armed": WriteProtect,
        "sampled": lambda task: WriteProtect(task, sample=Fraction(1, 8)),
    }
    shares: dict[str, list[float]] = {way: [] for way in ways}
    with Task.attach(pid) as task:
        for _ in range(rounds):
            for way, begin in ways.items():
                with begin(task) as tracker:
                    if isinstance(tracker, WriteProtect):
                        tracker.arm()
                    shares[way].append(_cpu_share(pid, tracker, window_s))
    medians = {way: statistics.median(values) for way, values in shares.items()}
    costs = [
        statistics.median(a - b for a, b in zip(shares[way], shares["plain"], strict=True))
        for way in ("armed", "sampled")
    ]
    print(
        f"| {rate} | {medians['plain']:.1%} | {medians['armed']:.1%} | {medians['sampled']:.1%} | "
        + " | ".join(f"{cost:+.1%} of a CPU" for cost in costs)
        + " |",
        flush=True,
    )


def _cpu_share(pid: int, tracker: object, window_s: float) -> float:
    began, cpu_before = time.monotonic(), _cpu_s(pid)
    while time.monotonic() < began + window_s:
        time.sleep(1)
        if isinstance(tracker, WriteProtect):
            tracker.scan()
    return (_cpu_s(pid) - cpu_before) / (time.monotonic() - began)


def _cpu_s(pid: int) -> float:
    # In nanoseconds, where `stat` has hundredths of a second.
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


@contextlib.contextmanager
def _logger(program: Path, log: Path, rate: int) -> Iterator[int]:
    pages = 512 * 256
    log.write_bytes(bytes(pages // 8))
    process = subprocess.Popen([program, log, str(pages), str(rate)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        process.wait()


def _fine(seconds: list[float]) -> str:
    middle, least, most = statistics.median(seconds), min(seconds), max(seconds)
    return f"{middle * 1000:.1f} [{least * 1000:.1f}-{most * 1000:.1f}]"
