"""``snaplib forecast``: how large a dump of a task will be, how long it takes, whether it fits, and what to do."""

from __future__ import annotations

import argparse
import contextlib
import time
from typing import TYPE_CHECKING, Any

from snaplib.cli.options import (
    add_arm,
    add_bandwidth,
    add_json,
    add_store,
    add_task,
    add_window,
    zero_or_more,
)
from snaplib.cli.output import emit_json, human_bytes, human_seconds, message, table

if TYPE_CHECKING:
    from snaplib.forecasting import Forecast, Interval, StrategyForecast
    from snaplib.planning import Plan

__all__ = ["configure", "forecast_json", "interval_json", "plan_json", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_task(parser)
    add_store(parser)
    add_json(parser)
    add_window(parser)
    add_bandwidth(parser)
    parser.add_argument(
        "--watch",
        type=zero_or_more("seconds"),
        default=5.0,
        metavar="SECONDS",
        dest="watch_s",
        help="see for so long what the task writes (default: 5; 0 to look once)",
    )
    add_arm(parser)


def run(args: argparse.Namespace) -> int:
    """Watch the task for a while, and tell."""
    # Late: eBPF, numpy and what else a watch needs.
    from snaplib.checkpoint.compressibility import sample_compression  # noqa: PLC0415
    from snaplib.history import forecast  # noqa: PLC0415
    from snaplib.observe import Watch  # noqa: PLC0415
    from snaplib.planning import plan  # noqa: PLC0415
    from snaplib.task import Task  # noqa: PLC0415

    with contextlib.ExitStack() as stack:
        task = stack.enter_context(Task.attach(args.pid))
        watch = stack.enter_context(Watch(task, 0.5, arm=args.arm))
        sample = sample_compression(task)
        _watch_for(watch, args.watch_s)
        made = forecast(
            watch.profile(),
            store=args.store,
            window_s=args.window,
            bandwidth_bytes_s=None if args.bandwidth is None else args.bandwidth * 1e6,
            sample=sample,
        )
    chosen = plan(made)
    if args.json:
        emit_json({**forecast_json(made), "plan": plan_json(chosen)})
    else:
        _print(made, chosen)
    return 0


def _watch_for(watch: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left_s := end - time.monotonic()) > 0 and not watch.ended:
        watch.wait(timeout_s=left_s)


def interval_json(interval: Interval) -> dict[str, float]:
    """Return an interval as JSON has it."""
    return {"low": interval.low, "median": interval.median, "high": interval.high}


def forecast_json(forecast: Forecast) -> dict[str, Any]:
    """Return what `--json` prints of a forecast."""
    return {
        "window_s": forecast.window_s,
        "store_bytes_s": forecast.store_bytes_s,
        "best": forecast.strategies.index(forecast.best),
        "strategies": [_step_json(step) for step in forecast.strategies],
        "dirty_bytes": {str(age): forecast.curve.at(age) for age in (1, 5, 30, 120)},
        "learned_from_dumps": forecast.models.count,
        "notes": list(forecast.notes),
    }


def _step_json(step: StrategyForecast) -> dict[str, Any]:
    return {
        "name": step.name,
        "copies": step.copies,
        "copied_bytes": step.copied_bytes,
        "copy_s": step.copy_s,
        "size_bytes": interval_json(step.size_bytes),
        "stored_bytes": interval_json(step.stored_bytes),
        "phases_s": {name: interval_json(seconds) for name, seconds in step.phases.items()},
        "frozen_s": interval_json(step.frozen_s),
        "duration_s": interval_json(step.duration_s),
        "fits": step.fits,
        "binds": step.binds,
    }


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return what `--json` prints of a plan."""
    return {
        "strategy": plan.strategy,
        "reasons": list(plan.reasons),
        "next_copy_s": plan.next_copy_s,
        "every_s": plan.every_s,
        "fits": plan.fits,
        "fits_then": plan.fits_then,
        "rounds": plan.rounds,
        "codec": plan.codec,
        "level": plan.level,
        "copy_bytes_s": plan.copy_bytes_s,
    }


def _print(forecast: Forecast, plan: Plan) -> None:
    rows = [
        [
            step.name if not step.copies else f"{step.name}, {step.copies} copied first",
            f"{human_bytes(step.size_bytes.median)} ({_range(step.size_bytes, human_bytes)})",
            human_bytes(step.stored_bytes.median),
            f"{human_seconds(step.duration_s.median)} ({_range(step.duration_s, human_seconds)})",
            human_seconds(step.frozen_s.median),
            f"{min(int(step.fits * 1000) / 10, 99.9):g} %",
        ]
        for step in forecast.strategies
    ]
    fits = f"FITS {human_seconds(forecast.window_s)}"
    print(table(("STRATEGY", "LAST STEP", "STORED", "TAKES", "FROZEN", fits), rows), end="\n\n")
    print(f"plan: {plan.strategy}")
    for reason in plan.reasons:
        if reason not in forecast.notes:
            print(f"  {reason}")
    for note in forecast.notes:
        message(note)


def _range(interval: Interval, human: Any) -> str:
    return f"{human(interval.low)} to {human(interval.high)}"
