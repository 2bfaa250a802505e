"""How long forecasting and planning take, ages of 16 million pages included."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import attrs
import numpy as np

from snaplib.forecasting import CompressionSample, Models, forecast_with
from snaplib.observe.agetable import AgeTable
from snaplib.planning import plan
from snaplib.testing.dumps import HOST, STORE, SimulatedHost, make_profile
from tests.benchmarks.harness import machine

SUMMARY = "forecast and plan for a task of 64 GB"

_PAGE_BYTES = 4096


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--pages", type=int, default=16_000_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--check", action="store_true", help="fail if it takes too long")


def run(args: argparse.Namespace) -> None:
    """Print medians and the slowest, in ms."""
    table = _aged(args.pages)
    records = SimulatedHost().records(200)
    learn_ms, models = _timed(lambda: Models.learn(records, host=HOST, store=STORE), 3)
    profile = make_profile(args.pages * _PAGE_BYTES)

    def ages() -> object:
        return table.ages(1000.0)

    aged = attrs.evolve(profile, page_ages=table.ages(1000.0))

    def predict() -> object:
        return forecast_with(
            models,
            aged,
            window_s=60,
            bandwidth_bytes_s=2e8,
            sample=CompressionSample(0.5),
            warm_age_s=20,
        )

    forecast_ms, made = _timed(predict, args.rounds)
    plan_ms, _ = _timed(lambda: plan(made), args.rounds)
    ages_ms, _ = _timed(ages, args.rounds)
    print(f"{machine()}; {args.pages:,} pages, {models.count} dumps learned from")
    print("| what | median, ms | slowest, ms |")
    print("|---|---|---|")
    for name, figures in (
        ("ages of pages, from the table", ages_ms),
        ("forecast", forecast_ms),
        ("plan", plan_ms),
        ("learning, when the history has changed", learn_ms),
    ):
        print(f"| {name} | {statistics.median(figures):.2f} | {max(figures):.2f} |")
    planning = statistics.median(ages_ms) + statistics.median(plan_ms)
    if args.check and (planning > 50 or statistics.median(forecast_ms) > 5):
        raise SystemExit("over the limits of 50 ms and 5 ms")


def _timed(work: Callable[[], object], rounds: int) -> tuple[list[float], object]:
    took, result = [], None
    for _ in range(rounds):
        began = time.perf_counter()
        result = work()
        took.append((time.perf_counter() - began) * 1000)
    return took, result


def _aged(pages: int) -> AgeTable:
    """A table of pages that were written over 400 scans, the newest hundredth in each."""
    table = AgeTable(_PAGE_BYTES)
    table.begin(0.0)
    random = np.random.default_rng(1)
    table.next_epoch(0.0)
    table.write(1, np.array([0], np.uint64), np.array([pages], np.uint64))
    for scan in range(400):
        table.next_epoch(100.0 + scan)
        start = int(random.integers(0, pages - pages // 100))
        table.write(
            1, np.array([start * _PAGE_BYTES], np.uint64), np.array([pages // 100], np.uint64)
        )
    return table
