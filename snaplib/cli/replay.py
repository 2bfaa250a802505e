"""``snaplib replay``: what each strategy would have done for a recorded task."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import attrs

from snaplib.cli.options import add_bandwidth, add_json, add_store, add_window
from snaplib.cli.output import emit_json, human_bytes, human_seconds, message, table
from snaplib.errors import UsageError

if TYPE_CHECKING:
    from snaplib.planning import Outcome

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("trace", metavar="TRACE", help="what `snaplib watch --record` has written")
    add_store(parser)
    add_json(parser)
    add_window(parser)
    add_bandwidth(parser)
    parser.add_argument(
        "--ratio",
        type=float,
        metavar="RATIO",
        default=0.5,
        help="what compression leaves of a byte of the task's memory (default: 0.5)",
    )


def run(args: argparse.Namespace) -> int:
    """Play the recording through with each strategy."""
    from snaplib.forecasting import CompressionSample  # noqa: PLC0415  late, for the parser's sake
    from snaplib.history import models_for  # noqa: PLC0415
    from snaplib.observe import Trace  # noqa: PLC0415
    from snaplib.planning import replay, timer_as_safe  # noqa: PLC0415

    if not 0 <= args.ratio <= 1:
        raise UsageError(f"a ratio of {args.ratio:g} is not between 0 and 1")
    profiles = list(Trace(args.trace))
    if not profiles:
        raise UsageError(
            f"the trace {args.trace} has no profile",
            hint="record one with `snaplib watch --record`",
        )
    models = models_for(store=args.store)
    bandwidth_bytes_s = None if args.bandwidth is None else args.bandwidth * 1e6
    sample = CompressionSample(args.ratio)
    outcomes = replay(
        profiles,
        models,
        window_s=args.window,
        bandwidth_bytes_s=bandwidth_bytes_s,
        sample=sample,
    )
    if outcomes[0].copies:
        as_safe = timer_as_safe(
            profiles,
            models,
            outcomes[0].saved,
            window_s=args.window,
            bandwidth_bytes_s=bandwidth_bytes_s,
            sample=sample,
        )
        if as_safe is not None:
            timer_s, outcome = as_safe
            outcomes.append(attrs.evolve(outcome, policy=f"timer-{timer_s:g}s"))
    length_s = profiles[-1].monotonic_s - profiles[0].monotonic_s
    if args.json:
        emit_json(
            {
                "trace": args.trace,
                "length_s": length_s,
                "window_s": args.window,
                "bandwidth_bytes_s": bandwidth_bytes_s,
                "policies": [_as_json(one) for one in outcomes],
                "notes": list(models.notes),
            }
        )
        return 0
    print(
        table(
            (
                "POLICY",
                "SAVED",
                "WORST",
                "COPIES",
                "COPIED AHEAD",
                "A SECOND",
                "DONE AFTER",
                "FROZEN",
            ),
            [_row(one) for one in outcomes],
        )
    )
    for reason in outcomes[0].reasons:
        print(f"  {reason}")
    for note in models.notes:
        message(note)
    return 0


def _as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "policy": outcome.policy,
        "notices": outcome.notices,
        "saved": outcome.saved,
        "worst": outcome.worst,
        "copies": outcome.copies,
        "ahead_bytes": outcome.ahead_bytes,
        "ahead_bytes_s": outcome.ahead_bytes_s,
        "median_done_s": outcome.median_done_s,
        "median_frozen_s": outcome.median_frozen_s,
        "reasons": list(outcome.reasons),
    }


def _row(outcome: Outcome) -> list[str]:
    return [
        outcome.policy,
        f"{outcome.saved * 100:.1f} %",
        f"{outcome.worst * 100:.1f} %",
        str(outcome.copies),
        human_bytes(outcome.ahead_bytes),
        f"{human_bytes(outcome.ahead_bytes_s)}/s",
        human_seconds(outcome.median_done_s),
        human_seconds(outcome.median_frozen_s),
    ]
