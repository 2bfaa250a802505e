"""The dirty count of a tracker against a program that logs which pages it writes, second by second.

Two such programs run side by side: all of one is armed, an eighth of the other.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from snaplib.task import Task
from snaplib.track import MemoryKind, WriteProtect
from tests.benchmarks.harness import machine

SUMMARY = "dirty pages counted, armed wholly and by sampling, against the truth"

#: Largest errors that ``--check`` lets pass. Sampling's is more than five standard errors of one
#: second's count.
ARMED_LIMIT, SAMPLED_LIMIT = 0.01, 0.10

#: A multiple of a group of regions. Where the pages lie otherwise is chance, and with it how many
#: regions of the busy eighth are sampled: an error that ``--check`` cannot leave to chance.
_CHECKED_ADDRESS = 0x5000_0000_0000

_SOURCE = Path(__file__).parent.parent / "workloads" / "page_logger.c"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--mib", type=int, default=512, help="memory of each program")
    parser.add_argument("--rate", type=int, default=20000, help="pages written a second")
    parser.add_argument("--check", action="store_true", help="fail if an error is too large")


def run(args: argparse.Namespace) -> None:
    """Print a table of errors."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        program = folder / "page_logger"
        subprocess.run(["gcc", "-O2", "-o", program, _SOURCE], check=True)
        pages = args.mib * 256
        place = [f"{_CHECKED_ADDRESS:x}"] if args.check else []
        writer = functools.partial(_logged, program, pages, [str(args.rate), *place])
        armed = stack.enter_context(writer(folder / "armed", None))
        sampled = stack.enter_context(writer(folder / "sampled", Fraction(1, 8)))
        for _ in range(args.seconds):
            time.sleep(1)
            armed.look()
            sampled.look()
    print(f"{machine()}; {args.mib} MiB each, {args.rate} writes a second, {args.seconds} s")
    print("| armed | pages a second | median error | largest | within 2 standard errors |")
    print("|---|---|---|---|---|")
    print(armed.line("all"))
    print(sampled.line("1/8"))
    if args.check and (armed.largest > ARMED_LIMIT or sampled.largest > SAMPLED_LIMIT):
        raise SystemExit(f"over the limits of {ARMED_LIMIT:.0%} and {SAMPLED_LIMIT:.0%}")


class _Logged:
    """A tracked program and what it and its tracker say of it."""

    def __init__(self, pid: int, log: Path, sample: Fraction | None) -> None:
        self.task = Task.attach(pid)
        self.tracker = WriteProtect(self.task, sample=sample)
        self._log = np.memmap(log, np.uint8, "r+")
        self._sample = sample
        self.truths: list[int] = []
        self.errors: list[float] = []
        self.within: list[bool] = []
        with self.task.frozen(5.0):
            pass
        self.tracker.arm()
        self._look()

    def look(self) -> None:
        """Compare one interval."""
        truth, estimate, error = self._look()
        self.truths.append(truth)
        self.errors.append(abs(estimate - truth) / truth)
        self.within.append(abs(estimate - truth) <= 2 * error)

    def _look(self) -> tuple[int, float, float]:
        # Scan and log must be of the same interval.
        with self.task.frozen(5.0):
            scan = self.tracker.scan(frozen_by_caller=True)
            truth = int(np.bitwise_count(self._log).sum())
            self._log[:] = 0
        if self._sample is None:
            # Its log, stack and so on are no part of what it logs.
            return truth, scan.by_kind()[MemoryKind.PRIVATE], 0.0
        return truth, scan.estimate.pages, scan.estimate.standard_error_pages

    @property
    def largest(self) -> float:
        """The largest error relative to the truth."""
        return max(self.errors)

    def line(self, name: str) -> str:
        """Return a line of the table."""
        within = "-" if self._sample is None else f"{statistics.mean(self.within):.0%}"
        return (
            f"| {name} | {statistics.median(self.truths):.0f} | "
            f"{statistics.median(self.errors):.3%} | {self.largest:.3%} | {within} |"
        )


@contextlib.contextmanager
def _logged(
    program: Path, pages: int, arguments: list[str], log: Path, sample: Fraction | None
) -> Iterator[_Logged]:
    log.write_bytes(bytes((pages + 7) // 8))
    process = subprocess.Popen([program, log, str(pages), *arguments], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        logged = _Logged(process.pid, log, sample)
        try:
            yield logged
        finally:
            logged.tracker.close()
            logged.task.close()
    finally:
        process.kill()
        process.wait()
