"""What a supervisor costs while nothing happens, and how soon after a notice the dump begins and the task is saved."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import attrs

from snaplib.errors import EXIT_SAVED, UsageError
from snaplib.reclaim import Run as RunHere
from snaplib.testing.metadata import FakeAws, FakeAzure, FakeGcp
from tests.benchmarks.harness import machine
from tests.system.conftest import WORKLOADS, Bench, wait_until

SUMMARY = "an idle supervisor's CPU and memory, and the time from a notice to the dump, to standstill, and to the end"

#: Source -> the seconds between two questions; 0 where it is heard at once.
SOURCES = {
    "signal": 0.0,
    "announced": 0.0,
    "command": 0.0,
    "own source": 0.0,
    "file": 0.5,
    "aws": 2.0,
    "gcp": 0.0,
    "azure": 1.0,
}
#: Those whose supervisors are looked at while nothing happens.
_IDLE = ("file", "aws", "gcp", "azure")
#: A dump begins so soon after its notice is heard.
_SOON_S = 0.1
#: The lines a second of the task that is saved; before each a page is changed.
_LINES_PER_S = 100
#: The first copy ahead begins so long after the start, and is under way for longer than a source's interval.
_FIRST_COPY_S = 5.0
#: How often an idle supervisor's memory is looked at.
_LOOK_EVERY_S = 5.0

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
    parser.add_argument("--rounds", type=int, default=3, help="how many notices for each source")
    parser.add_argument("--mib", type=int, default=1024, help="memory of the task that is saved")
    parser.add_argument("--sources", default=",".join(SOURCES), help="who gives notice")
    parser.add_argument("--parts", default="idle,notices", help="what is measured")


def run(args: argparse.Namespace) -> None:
    """Measure, and print the tables."""
    print(machine())
    if "idle" in args.parts:
        print(
            f"\n| task | source | CPU over {args.seconds:g} s | memory at most (resident) | its init's |"
        )
        print("|---|---|---|---|---|", flush=True)
        for line in idle(args.settle, args.seconds):
            print(line, flush=True)
    if "notices" in args.parts:
        print(
            f"\n{args.mib} MiB of memory, {args.rounds} notices each, at any moment of the first copy ahead"
        )
        print(
            "\n| source | asked every | notice to dump: median | worst | allowed | to standstill: median | worst "
            "| to saved: median | worst |"
        )
        print("|---|---|---|---|---|---|---|---|---|", flush=True)
        for source in args.sources.split(","):
            print(
                _line(source, [notice_times_s(source, args.mib) for _ in range(args.rounds)]),
                flush=True,
            )


def _line(source: str, times_s: list[tuple[float, float, float]]) -> str:
    interval_s = SOURCES[source]
    dump, still, saved = (
        f"{statistics.median(some) * 1000:.0f} ms | {max(some) * 1000:.0f} ms"
        for some in zip(*times_s, strict=True)
    )
    every = f"{interval_s:g} s" if interval_s else "at once"
    allowed_ms = (interval_s + _SOON_S) * 1000
    return f"| {source} | {every} | {dump} | {allowed_ms:.0f} ms | {still} | {saved} |"


class Run:
    """A supervised task.

    Args:
        source: Who gives notice.
        program: The task's command.
        stack: Ends it.
        options: Of the process.
    """

    def __init__(
        self,
        source: str,
        program: Sequence[str | Path],
        stack: contextlib.ExitStack,
        **options: Any,
    ) -> None:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="supervisor-", dir="/var/tmp")
        )
        self.bench = Bench(Path(folder))
        stack.callback(self.bench.tidy)
        self.events = self.bench.folder / "events"
        way = _way(source, self.bench, stack)
        self.announce = way.announce
        self.process = self.bench.start_python(
            [*way.program, "--events", self.events, "-q", "--", *program],
            env={**self.bench.env, **way.environment},
            **options,
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
    cases += [(source, "sleeps") for source in _IDLE]
    with contextlib.ExitStack() as stack:
        runs = [
            Run(source, [sys.executable, "-I", "-S", "-c", _TASK, *map(str, TASKS[task])], stack)
            for source, task in cases
        ]
        for one in runs:
            wait_until(
                lambda one=one: any(not copy["left_bytes"] for copy in one.told("copied")),
                "the first copy",
                300,
            )
        time.sleep(settle_s)
        before_s = [_cpu_s(one.process.pid) for one in runs]
        end_s = time.monotonic() + seconds
        looks = []
        while time.monotonic() < end_s:
            looks.append([_rss_bytes(one.process.pid) for one in runs])
            time.sleep(min(_LOOK_EVERY_S, max(0.0, end_s - time.monotonic())))
        lines = []
        for (source, task), one, cpu_s, *seen in zip(cases, runs, before_s, *looks, strict=True):
            share = (_cpu_s(one.process.pid) - cpu_s) / seconds
            memory_mib, init_mib = (
                some / 2**20 for some in (max(seen), _rss_bytes(one.bench.sessions()[0]))
            )
            lines.append(
                f"| {task} | {source} | {share:.2%} | {memory_mib:.1f} MiB | {init_mib:.0f} MiB |"
            )
    return lines


class LastLine:
    """Reads what a task writes, which it does all the time while it runs.

    Args:
        stream: Its output.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        stream.readline()
        self._stream = stream
        #: When the last line came.
        self.at_s = time.time()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for _line in self._stream:
            self.at_s = time.time()

    def join(self) -> None:
        """Wait for the end of the stream."""
        self._thread.join()


def notice_times_s(source: str, mib: int) -> tuple[float, float, float]:
    """Return the seconds from a notice to the dump, to when the task does nothing more, and to when it is saved."""
    with contextlib.ExitStack() as stack:
        program = [sys.executable, WORKLOADS / "large.py", str(mib), "finish", str(_LINES_PER_S)]
        one = Run(source, program, stack, stdout=subprocess.PIPE)
        assert one.process.stdout is not None
        last = LastLine(one.process.stdout)
        time.sleep(_FIRST_COPY_S + random.uniform(0, 2 + SOURCES[source]))
        began_s = time.time()
        one.announce(one.process)
        if one.process.wait(120) != EXIT_SAVED:
            raise RuntimeError(f"the task was not saved on the notice of {source}")
        last.join()
        (dumping,), (saved,) = one.told("dumping"), one.told("saved")
    return dumping["time_s"] - began_s, last.at_s - began_s, saved["time_s"] - began_s


@attrs.frozen
class Way:
    """A way to give notice.

    Attributes:
        announce: Gives it to a supervisor.
        program: The supervisor's Python module and its arguments, but for the common ones.
        environment: What it needs in its environment.
    """

    announce: Callable[[subprocess.Popen[bytes]], object]
    program: Sequence[str | Path]
    environment: Mapping[str, str] = attrs.field(factory=dict)


def _way(source: str, bench: Bench, stack: contextlib.ExitStack) -> Way:
    going = bench.folder / "going"
    run = ["snaplib", "run", "--reclaim"]
    if source == "aws":
        aws = stack.enter_context(FakeAws())
        return Way(lambda _run: aws.announce(), [*run, "aws"], aws.environment)
    if source == "gcp":
        gcp = stack.enter_context(FakeGcp())
        return Way(lambda _run: gcp.announce(), [*run, "gcp"], gcp.environment)
    if source == "azure":
        azure = stack.enter_context(FakeAzure())
        return Way(lambda _run: azure.announce(), [*run, "azure"], azure.environment)
    if source == "file":
        return Way(lambda _run: going.touch(), [*run, f"file={going}"])
    if source == "announced":
        return Way(lambda _run: _announce(bench), [*run, "signal"])
    if source == "signal":
        return Way(lambda run: run.send_signal(signal.SIGUSR1), [*run, "signal"])
    # Whoever opens it for reading is woken at once.
    os.mkfifo(going)
    if source == "command":
        return Way(lambda _run: going.write_text("\n"), [*run, f"command=read line < {going}"])
    if source == "own source":
        return Way(
            lambda _run: going.write_text("\n"), ["tests.benchmarks.own_source", "--fifo", going]
        )
    raise UsageError(f"there is no source {source!r}", hint=", ".join(SOURCES))


def _announce(bench: Bench) -> None:
    (path,) = bench.runtime.glob("notices/*.run")
    run = RunHere(path)
    run.announce()
    run.close()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_bytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024.0
    return 0.0
