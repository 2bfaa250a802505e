"""Recorded programs with a notice at every instant: the plan beside P.Haul's rules, timers, and a dump alone."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from snaplib.forecasting import CompressionSample, Models
from snaplib.observe import Profile, Trace
from snaplib.planning import POLICIES, Outcome, replay, timer_as_safe
from tests.benchmarks.bench_forecast_accuracy import DATA, learned

SUMMARY = (
    "recorded programs replayed with each strategy, and with the timer that is as safe as the plan"
)

_ROOT = Path(__file__).parents[2]
#: Windows in seconds, and bandwidths in bytes a second.
_SETTINGS = ((120, 2e6), (30, 4e6), (30, 16e6), (10, 32e6))
#: A shared differing by less is the same.
_SAME = 0.001


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--traces", type=Path, default=_ROOT / "notebooks" / "data", help="a folder of recordings"
    )
    parser.add_argument("--data", type=Path, default=DATA, help="dumps to learn from")
    parser.add_argument("--ratio", type=float, default=0.5, help="what the codec leaves of a byte")
    parser.add_argument("--every", type=int, default=5, help="look at one profile of so many")


@attrs.frozen
class Played:
    """One recording in one setting.

    Attributes:
        name: Of the recording.
        outcomes: By policy.
        as_safe: The rarest timer that saves as much as the plan, in seconds, and how it fared; None without.
    """

    name: str
    outcomes: dict[str, Outcome]
    as_safe: tuple[float, Outcome] | None


def run(args: argparse.Namespace) -> None:
    """Replay everything."""
    models = learned(args.data)
    paths = [*sorted(args.traces.glob("*.trace")), _ROOT / "tests" / "data" / "align.trace"]
    traces = {path.stem: list(Trace(path))[:: args.every] for path in paths}
    print(f"{models.count} dumps learned from; {', '.join(traces)}")
    print(
        "| window, way to the store | "
        + " | ".join(POLICIES)
        + " | worse than a baseline | timers as safe copy |"
    )
    print("|---" * (3 + len(POLICIES)) + "|")
    for window_s, bandwidth in _SETTINGS:
        options = {
            "window_s": window_s,
            "bandwidth_bytes_s": bandwidth,
            "sample": CompressionSample(args.ratio),
        }
        played = [_play(name, profiles, models, options) for name, profiles in traces.items()]
        print(_line(f"{window_s} s, {bandwidth / 1e6:.0f} MB/s", played), flush=True)


def _play(name: str, profiles: list[Profile], models: Models, options: dict[str, Any]) -> Played:
    outcomes = {one.policy: one for one in replay(profiles, models, **options)}
    as_safe = timer_as_safe(profiles, models, outcomes["plan"].saved, **options)
    return Played(name, outcomes, as_safe)


def _line(setting: str, played: list[Played]) -> str:
    cells = []
    for policy in POLICIES:
        some = [one.outcomes[policy] for one in played]
        saved = np.mean([one.saved for one in some])
        cells.append(f"{saved:.1%}, {np.mean([one.ahead_bytes_s for one in some]) / 1e6:.1f} MB/s")
    worse = [
        one.name
        for one in played
        if any(one.outcomes["plan"].saved < other.saved - _SAME for other in one.outcomes.values())
    ]
    compared = [(one, one.as_safe[1]) for one in played if one.as_safe is not None]
    ours = sum(one.outcomes["plan"].ahead_bytes_s for one, _ in compared) / 1e6
    theirs = sum(timer.ahead_bytes_s for _, timer in compared) / 1e6
    more = [
        one.name
        for one, timer in compared
        if one.outcomes["plan"].ahead_bytes > timer.ahead_bytes * 1.01
    ]
    return (
        f"| {setting} | "
        + " | ".join(cells)
        + f" | {', '.join(worse) or 'never'} | {theirs:.1f} MB/s where the plan copies {ours:.1f} "
        + f"({len(compared)} of {len(played)}); the plan more in {', '.join(more) or 'none'} |"
    )
