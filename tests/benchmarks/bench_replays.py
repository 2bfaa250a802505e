"""Recorded programs with a notice at every instant: the plan beside P.Haul's rules, timers, and a dump alone.

Two kinds of timers show what the plan is worth. A *fixed* one does not know the program: its period is the same for all
of them, the rarest with which as many tasks are saved, all in all. The other one knows everything beforehand: for each
recording it is the rarest that saves as much there as the plan does.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from snaplib.forecasting import CompressionSample, Models
from snaplib.observe import Profile, Trace
from snaplib.planning import POLICIES, TIMERS_S, Outcome, replay, timer_as_safe
from tests.benchmarks.bench_forecast_accuracy import DATA, learned

SUMMARY = "recorded programs replayed with each strategy, and with timers as safe as the plan"

_ROOT = Path(__file__).parents[2]
#: Windows in seconds, and bandwidths in 10^6 bytes a second.
_SETTINGS = "120:2,30:4,30:16,10:32"
#: A share differing by less is the same; for timers that are to be as safe, by half of it.
_SAME = 0.001
_AS_SAFE = 0.0005


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--traces", type=Path, default=_ROOT / "notebooks" / "data", help="a folder of recordings"
    )
    parser.add_argument("--data", type=Path, default=DATA, help="dumps to learn from")
    parser.add_argument("--ratio", type=float, default=0.5, help="what the codec leaves of a byte")
    parser.add_argument("--every", type=int, default=5, help="look at one profile of so many")
    parser.add_argument("--settings", default=_SETTINGS, help="window:MB/s, with commas between")
    parser.add_argument("--programs", action="store_true", help="a line for each recording, too")


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
        + " | worse than a baseline | fixed timer as safe | timers as safe, with hindsight |"
    )
    print("|---" * (4 + len(POLICIES)) + "|")
    for setting in args.settings.split(","):
        window_s, bandwidth = (float(one) for one in setting.split(":"))
        options = {
            "window_s": window_s,
            "bandwidth_bytes_s": bandwidth * 1e6,
            "sample": CompressionSample(args.ratio),
        }
        played = [_play(name, profiles, models, options) for name, profiles in traces.items()]
        fixed = _fixed(played, list(traces.values()), models, options)
        print(_line(f"{window_s:g} s, {bandwidth:g} MB/s", played, fixed), flush=True)
        if args.programs:
            print("\n".join(f"  {_about(one)}" for one in played), flush=True)


def _play(name: str, profiles: list[Profile], models: Models, options: dict[str, Any]) -> Played:
    outcomes = {one.policy: one for one in replay(profiles, models, **options)}
    as_safe = timer_as_safe(profiles, models, outcomes["plan"].saved, **options)
    return Played(name, outcomes, as_safe)


def _fixed(
    played: list[Played],
    recordings: list[list[Profile]],
    models: Models,
    options: dict[str, Any],
) -> str:
    """Return the rarest timer that saves as much as the plan with one period for all, or the one that saves most."""
    wanted = np.mean([one.outcomes["plan"].saved for one in played])
    best: tuple[float, str] | None = None
    for timer_s in TIMERS_S:
        outcomes = [
            replay(profiles, models, policies=["timer"], timer_s=timer_s, **options)[0]
            for profiles in recordings
        ]
        saved = float(np.mean([one.saved for one in outcomes]))
        moved = np.mean([one.ahead_bytes_s for one in outcomes]) / 1e6
        told = f"{timer_s:g} s: {saved:.1%}, {moved:.1f} MB/s"
        if saved >= wanted - _AS_SAFE:
            return told
        if best is None or saved > best[0]:
            best = saved, told
    assert best is not None
    return f"none; the safest {best[1]}"


def _line(setting: str, played: list[Played], fixed: str) -> str:
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
    ours = np.mean([one.outcomes["plan"].ahead_bytes_s for one, _ in compared]) / 1e6
    theirs = np.mean([timer.ahead_bytes_s for _, timer in compared]) / 1e6
    more = [
        one.name
        for one, timer in compared
        if one.outcomes["plan"].ahead_bytes > timer.ahead_bytes * 1.01
    ]
    return (
        f"| {setting} | "
        + " | ".join(cells)
        + f" | {', '.join(worse) or 'never'} | {fixed} | {theirs:.1f} MB/s, the plan {ours:.1f} "
        + f"({len(compared)} of {len(played)}); the plan more in {', '.join(more) or 'none'} |"
    )


def _about(played: Played) -> str:
    told = [
        f"{name} {one.saved:.2%} {one.ahead_bytes / 1e6:.0f} MB"
        for name, one in played.outcomes.items()
    ]
    if played.as_safe is not None:
        timer_s, one = played.as_safe
        told.append(f"{timer_s:g} s {one.saved:.2%} {one.ahead_bytes / 1e6:.0f} MB")
    return f"{played.name}: {'; '.join(told)}"
