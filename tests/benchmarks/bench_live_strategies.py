"""Real programs with a notice that comes: who is saved in a window that a full dump does not fit.

Each program is run once to see what a full dump would send to the store; the store is then so slow that it would
take a given multiple of the window. Every strategy gets a run of its own, a notice at the same age, and a store as
slow. P.Haul's rules and the timer use the same copies and the same dumps as the plan does.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

import snaplib
from snaplib.checkpoint.compressibility import sample_compression
from snaplib.errors import SnaplibError
from snaplib.forecasting import CompressionSample
from snaplib.history import models_for
from snaplib.planning import plan
from snaplib.track import open_tracker
from snaplib.warm import WarmCopy
from tests.benchmarks.harness import machine
from tests.benchmarks.programs import Program, available, running
from tests.benchmarks.slowstore import ThrottledBackend

SUMMARY = "real programs saved in a short window by the plan, P.Haul's rules, a timer, and a dump"

_PAGE_BYTES = 4096
#: P.Haul's rules: so many rounds, so few pages, growth of so much end the copying.
_ROUNDS, _PAGES, _GROWTH = 8, 64, 1.1
#: Copies of the timer are 300 s apart: in one run there is one, made when the task is this old.
_TIMER_AT_S = 2.0
_SETTLE_S = 2.0
#: After so many windows P.Haul is told to stop: it has lost.
_ENDLESS = 2


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--programs", default="bwa,samtools-sort,xz,zstd,gcc,redis", help="with commas between"
    )
    parser.add_argument("--window", type=float, default=10.0, help="seconds")
    parser.add_argument(
        "--age", type=float, default=20.0, help="of the task at the notice, seconds"
    )
    parser.add_argument(
        "--factor", type=float, default=1.6, help="how many windows a full dump would take"
    )
    parser.add_argument("--rounds", type=int, default=1, help="runs of each strategy and program")
    parser.add_argument("--dir", default="/var/tmp", help="a folder on the disk to write to")


@attrs.define
class Run:
    """One task from its start to the end of its window.

    Attributes:
        task: The task.
        store: Where it is saved.
        window_s: From the notice to the end.
        bandwidth_bytes_s: Of the store.
        sample: How well its memory compresses.
        ahead_bytes: What was copied before the notice.
    """

    task: snaplib.Task
    store: snaplib.Store
    window_s: float
    bandwidth_bytes_s: float
    sample: CompressionSample | None
    ahead_bytes: float = 0.0

    def copy(self, warm: WarmCopy, until_s: float) -> float:
        """Make a copy that stops at a time at the latest, and return what it moved."""
        stop = threading.Event()
        timer = threading.Timer(until_s - time.monotonic(), stop.set)
        timer.start()
        try:
            return float(warm.copy(stop).copied_pages * _PAGE_BYTES)
        finally:
            timer.cancel()


@attrs.frozen
class Outcome:
    """How one run ended.

    Attributes:
        done_s: From the notice until all was durable; infinite if that failed.
        ahead_bytes: Copied before it.
    """

    done_s: float
    ahead_bytes: float


def by_plan(run: Run, notice_at_s: float) -> WarmCopy:
    """Copy when the plan says so."""
    trackers: list[Any] = []

    def tracked(task: snaplib.Task) -> Any:
        trackers.append(open_tracker(task))
        return trackers[-1]

    warm = WarmCopy(run.task, run.store, open_tracker=tracked)
    models = models_for()
    copied_at_s: float | None = None
    with snaplib.Watch(run.task, 1.0, arm="none") as watch:
        while time.monotonic() < notice_at_s:
            profile = watch.wait(timeout_s=2) or watch.profile()
            forecast = snaplib.forecast(
                profile,
                window_s=run.window_s,
                bandwidth_bytes_s=run.bandwidth_bytes_s,
                sample=run.sample,
                warm_age_s=None if copied_at_s is None else profile.monotonic_s - copied_at_s,
                models=models,
            )
            made = plan(forecast)
            if made.next_copy_s is None or made.next_copy_s > 0.5:
                continue
            copied_at_s = time.monotonic()
            run.ahead_bytes += run.copy(warm, notice_at_s)
            watch.feed(trackers[0].scan(rearm=False))
    return warm


def by_timer(run: Run, notice_at_s: float) -> WarmCopy:
    """Copy each 5 minutes."""
    warm = WarmCopy(run.task, run.store)
    time.sleep(_TIMER_AT_S)
    run.ahead_bytes += run.copy(warm, notice_at_s)
    time.sleep(max(notice_at_s - time.monotonic(), 0.0))
    return warm


def by_phaul(run: Run, notice_at_s: float) -> WarmCopy:
    """Copy from the notice on, until little is left, or it does not get less."""
    time.sleep(max(notice_at_s - time.monotonic(), 0.0))
    warm = WarmCopy(run.task, run.store)
    before = float("inf")
    for _ in range(_ROUNDS):
        copied = run.copy(warm, notice_at_s + _ENDLESS * run.window_s)
        if copied <= _PAGES * _PAGE_BYTES or copied > before * _GROWTH:
            break
        before = copied
        if time.monotonic() > notice_at_s + _ENDLESS * run.window_s:
            break
    return warm


def by_dump(run: Run, notice_at_s: float) -> None:
    """Do nothing ahead."""
    del run
    time.sleep(max(notice_at_s - time.monotonic(), 0.0))


STRATEGIES: dict[str, Callable[[Run, float], WarmCopy | None]] = {
    "plan": by_plan,
    "phaul": by_phaul,
    "timer": by_timer,
    "dump": by_dump,
}


def run(args: argparse.Namespace) -> None:
    """Run each program with each strategy, interleaved."""
    print(machine())
    print(
        f"a notice at {args.age:g} s, a window of {args.window:g} s, a full dump would take {args.factor:g} of them"
    )
    outcomes: dict[str, list[Outcome]] = {name: [] for name in STRATEGIES}
    print("| program | MB/s | " + " | ".join(f"{name}: s, MB ahead" for name in STRATEGIES) + " |")
    print("|---" * (2 + len(STRATEGIES)) + "|")
    for program in available([one for one in args.programs.split(",") if one]):
        bandwidth, sample = _probe(program, args)
        for _ in range(args.rounds):
            line = []
            for name, strategy in STRATEGIES.items():
                outcome = _one(program, strategy, args, bandwidth=bandwidth, sample=sample)
                outcomes[name].append(outcome)
                line.append(f"{outcome.done_s:.2f}, {outcome.ahead_bytes / 1e6:.0f}")
            print(
                f"| {program.name} | {bandwidth / 1e6:.1f} | " + " | ".join(line) + " |", flush=True
            )
    print("| strategy | saved in the window | median s | MB ahead, all in all |")
    print("|---|---|---|---|")
    for name, some in outcomes.items():
        saved = sum(one.done_s <= args.window for one in some)
        print(
            f"| {name} | {saved} of {len(some)} | {statistics.median(one.done_s for one in some):.2f} | "
            f"{sum(one.ahead_bytes for one in some) / 1e6:.0f} |"
        )


def _probe(program: Program, args: argparse.Namespace) -> tuple[float, CompressionSample | None]:
    """Return the bandwidth at which a full dump takes the wanted time, and how well memory compresses."""
    with tempfile.TemporaryDirectory(dir=args.dir) as folder, running(program, Path(folder)) as pid:
        time.sleep(args.age + _SETTLE_S)
        task = snaplib.Task.attach(pid)
        with snaplib.Watch(task, 0.5, arm="none") as watch:
            size = watch.profile().dumpable_bytes
        sample = sample_compression(task)
    ratio = 1.0 if sample is None else sample.ratio
    return size * ratio / (args.factor * args.window), sample


def _one(
    program: Program,
    strategy: Callable[[Run, float], WarmCopy | None],
    args: argparse.Namespace,
    *,
    bandwidth: float,
    sample: CompressionSample | None,
) -> Outcome:
    with tempfile.TemporaryDirectory(dir=args.dir) as name, running(program, Path(name)) as pid:
        time.sleep(_SETTLE_S)
        local = snaplib.Store.open(Path(name) / "store")
        store = snaplib.Store.over(ThrottledBackend(local.backend, bandwidth))
        one = Run(snaplib.Task.attach(pid), store, args.window, bandwidth, sample)
        notice_at_s = time.monotonic() + args.age
        warm = strategy(one, notice_at_s)
        try:
            snaplib.dump(
                one.task, store, warm=warm, leave_running=True, deadline_s=10 * args.window
            )
            done_s = time.monotonic() - notice_at_s
        except SnaplibError as error:
            print(f"{program.name}: {error}", flush=True)
            done_s = float("inf")
        finally:
            if warm is not None:
                warm.close()
        return Outcome(done_s, one.ahead_bytes)
