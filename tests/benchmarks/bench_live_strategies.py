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

SUMMARY = "real programs saved in a short window by the plan, P.Haul's rules, timers, and a dump"

_PAGE_BYTES = 4096
#: P.Haul's rules: so many rounds, so few pages, growth of so much end the copying.
_ROUNDS, _PAGES, _GROWTH = 8, 64, 1.1
#: The timer's first copy is made when the task is this old.
_TIMER_AT_S = 2.0
_TIMER_S = 300.0
_LOOK_EVERY_S = 1.0
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
    parser.add_argument(
        "--often", type=float, default=5.0, help="seconds between copies of the frequent timer"
    )
    parser.add_argument(
        "--strategies", default=",".join(STRATEGIES), help="which, with commas between"
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
        often_s: Seconds between two copies of the frequent timer.
        copied_pages: By each copy that was made.
        later: What is to be done when all is over.
    """

    task: snaplib.Task
    store: snaplib.Store
    window_s: float
    bandwidth_bytes_s: float
    sample: CompressionSample | None
    often_s: float
    copied_pages: list[int] = attrs.field(factory=list)
    later: list[Callable[[], None]] = attrs.field(factory=list)

    def copy(self, warm: WarmCopy, until_s: float) -> bool:
        """Make a copy that stops at a time at the latest; return whether it is complete."""
        stop = threading.Event()
        timer = threading.Timer(until_s - time.monotonic(), stop.set)
        timer.start()
        try:
            done = warm.copy(stop)
        finally:
            timer.cancel()
        self.copied_pages.append(done.copied_pages)
        return not done.left_pages

    @property
    def ahead_bytes(self) -> float:
        """What has been copied."""
        return float(sum(self.copied_pages) * _PAGE_BYTES)


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
    # Its end is not waited for: after the notice every second counts.
    watch = snaplib.Watch(run.task, _LOOK_EVERY_S, arm="none")
    watch.start()
    run.later.append(watch.close)
    while (left_s := notice_at_s - time.monotonic()) > 0 and not watch.ended:
        profile = watch.wait(timeout_s=left_s)
        if profile is None or time.monotonic() >= notice_at_s:
            continue
        forecast = snaplib.forecast(
            profile,
            window_s=run.window_s,
            bandwidth_bytes_s=run.bandwidth_bytes_s,
            sample=run.sample,
            warm_age_s=None if copied_at_s is None else profile.monotonic_s - copied_at_s,
            models=models,
        )
        made = plan(forecast)
        if made.next_copy_s is not None and made.next_copy_s <= _LOOK_EVERY_S / 2:
            began_s = time.monotonic()
            if run.copy(warm, notice_at_s):
                copied_at_s = began_s
        if trackers and time.monotonic() < notice_at_s:
            watch.feed(trackers[0].scan(rearm=False))
    return warm


def by_timer(run: Run, notice_at_s: float) -> WarmCopy:
    """Copy each 5 minutes: once, in a run, when the task has been there for a moment."""
    return _timed(run, notice_at_s, _TIMER_S)


def by_frequent_timer(run: Run, notice_at_s: float) -> WarmCopy:
    """Copy each few seconds, whatever the task does."""
    return _timed(run, notice_at_s, run.often_s)


def _timed(run: Run, notice_at_s: float, every_s: float) -> WarmCopy:
    warm = WarmCopy(run.task, run.store)
    due_s = time.monotonic() + _TIMER_AT_S
    while due_s < notice_at_s:
        time.sleep(max(due_s - time.monotonic(), 0.0))
        due_s += every_s
        run.copy(warm, notice_at_s)
    time.sleep(max(notice_at_s - time.monotonic(), 0.0))
    return warm


def by_phaul(run: Run, notice_at_s: float) -> WarmCopy:
    """Copy from the notice on, until little is left, or it does not get less."""
    time.sleep(max(notice_at_s - time.monotonic(), 0.0))
    warm = WarmCopy(run.task, run.store)
    before = float("inf")
    for _ in range(_ROUNDS):
        run.copy(warm, notice_at_s + _ENDLESS * run.window_s)
        copied = run.copied_pages[-1] * _PAGE_BYTES
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
    "often": by_frequent_timer,
    "dump": by_dump,
}


def run(args: argparse.Namespace) -> None:
    """Run each program with each strategy, interleaved."""
    print(machine())
    print(
        f"a notice at {args.age:g} s, a window of {args.window:g} s, a full dump would take {args.factor:g} of them"
    )
    strategies = {name: STRATEGIES[name] for name in args.strategies.split(",")}
    outcomes: dict[str, list[Outcome]] = {name: [] for name in strategies}
    print("| program | MB/s | " + " | ".join(f"{name}: s, MB ahead" for name in strategies) + " |")
    print("|---" * (2 + len(strategies)) + "|")
    for program in available([one for one in args.programs.split(",") if one]):
        bandwidth, sample = _probe(program, args)
        for _ in range(args.rounds):
            line = []
            for name, strategy in strategies.items():
                outcome = _one(program, strategy, args, bandwidth=bandwidth, sample=sample)
                outcomes[name].append(outcome)
                line.append(f"{outcome.done_s:.2f}, {outcome.ahead_bytes / 1e6:.0f}")
            print(
                f"| {program.name} | {bandwidth / 1e6:.1f} | " + " | ".join(line) + " |", flush=True
            )
    print("| strategy | saved in the window | median s | MB copied ahead, all in all |")
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
        one = Run(snaplib.Task.attach(pid), store, args.window, bandwidth, sample, args.often)
        notice_at_s = time.monotonic() + args.age
        warm = strategy(one, notice_at_s)
        # What was copied after it is P.Haul's.
        ahead_bytes = 0.0 if strategy is by_phaul else one.ahead_bytes
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
            for finish in one.later:
                finish()
        return Outcome(done_s, ahead_bytes)
