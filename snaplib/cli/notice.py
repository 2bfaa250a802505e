"""``snaplib notice``: tell runs of this machine that it is about to be taken away."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from snaplib.cli.options import above_zero, add_json
from snaplib.cli.output import emit_json, human_seconds, message
from snaplib.errors import EXIT_DUMP_FAILED, NoSuchTask, RootRequired, SnaplibError, UsageError
from snaplib.reclaim import Run, runs_here

if TYPE_CHECKING:
    import argparse

__all__ = ["configure", "run"]

_LOOK_S = 0.05
#: A run tells at the end of its window that it could not be saved: so long it is waited for.
_GRACE_S = 5.0
#: What has become of a run in its last state.
_OUTCOMES = {"saved": "saved", "done": "ended", "failed": "failed"}
_WAITING = ("noticed", "dumping")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "which",
        nargs="?",
        metavar="RUN",
        help="its key, its session's name, or the pid of its task or of `snaplib run` (default: the only one there is)",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="all runs of this machine; that there are none is no error",
    )
    parser.add_argument(
        "--window",
        type=above_zero("seconds"),
        metavar="SECONDS",
        help="how long the machine lasts from now (default: what each run expects of a notice)",
    )
    parser.add_argument(
        "--wait",
        action="store_true",
        help="until they are saved or the window ends; exit with 0 if all are saved or have ended, else with what the "
        f"first that is not ends with, or {EXIT_DUMP_FAILED}",
    )
    parser.add_argument(
        "--cancel", action="store_true", help="take the notice back: what is not saved yet runs on"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Give notice, or take it back."""
    if args.which is not None and args.all:
        raise UsageError(f"{args.which} and --all are not both possible", hint="leave one out")
    if args.cancel and (args.wait or args.window is not None):
        raise UsageError("--cancel takes neither --window nor --wait")
    chosen = _choose(runs_here(), args.which, everybody=args.all)
    results = _cancel(chosen) if args.cancel else _announce(chosen, args.window)
    if args.wait:
        results = _wait(chosen, [float(str(one["window_s"])) for one in results])
    if args.json:
        emit_json({"runs": results})
    else:
        for line in map(_for_people, results):
            message(line)
        if not results:
            message("no run on this machine: there is nothing to save")
    return _status(results) if args.wait else 0


def _choose(runs: list[Run], which: str | None, *, everybody: bool) -> list[Run]:
    if not runs and os.geteuid() != 0:
        raise RootRequired("none of your runs is on this machine, and others' cannot be seen")
    if everybody:
        return runs
    known = ", ".join(f"{one.card.key} (pid {one.card.pid})" for one in runs) or "none"
    if which is None:
        if len(runs) == 1:
            return runs
        raise UsageError(
            f"nothing says which run is meant; on this machine: {known}", hint="name it, or --all"
        )
    for names in (_names, _pids):
        found = [one for one in runs if which in names(one)]
        if len(found) > 1:
            raise UsageError(f"there are {len(found)} runs {which!r}", hint="give the pid of one")
        if found:
            return found
    raise NoSuchTask(f"there is no run {which!r} on this machine", hint=f"there is: {known}")


def _names(one: Run) -> tuple[str, ...]:
    return (one.card.name, one.card.key)


def _pids(one: Run) -> tuple[str, ...]:
    return (
        (str(one.card.pid), str(one.card.task_pid)) if one.card.task_pid else (str(one.card.pid),)
    )


def _announce(runs: list[Run], window_s: float | None) -> list[dict[str, object]]:
    results = []
    for one in runs:
        try:
            left_s = one.announce(window_s)
        except OSError as error:
            raise SnaplibError(f"notice cannot be given: {error}") from error
        results.append(_result(one, "announced") | {"window_s": left_s})
    return results


def _cancel(runs: list[Run]) -> list[dict[str, object]]:
    return [_result(one, "cancelled" if one.cancel() else "no-notice") for one in runs]


def _wait(runs: list[Run], windows_s: list[float]) -> list[dict[str, object]]:
    """Return what has become of runs that were given notice, with so long a window each."""
    outcomes: dict[str, str] = {}
    ends_s = [time.monotonic() + window_s + _GRACE_S for window_s in windows_s]
    while True:
        for one, end_s in zip(runs, ends_s, strict=True):
            if one.card.name not in outcomes:
                outcome = _outcome(one, end_s)
                if outcome:
                    outcomes[one.card.name] = outcome
        if len(outcomes) == len(runs):
            return [_result(one, outcomes[one.card.name]) for one in runs]
        time.sleep(_LOOK_S)


def _outcome(one: Run, until_s: float) -> str:
    """Return what has become of a run; empty while that is not known."""
    # Before its state is read: a run that is over has told so before it removes the notice.
    was_there = one.window_end_s is not None
    if not one.refresh():
        outcome = _OUTCOMES.get(one.card.state, "killed")
        if outcome != "killed":
            # It may have ended just before it was told: the next run of its key is not meant.
            one.cancel()
        return outcome
    if time.monotonic() >= until_s:
        return "late"
    if not was_there and one.card.state not in (*_WAITING, *_OUTCOMES):
        return "cancelled"
    return ""


def _result(one: Run, outcome: str) -> dict[str, object]:
    card = one.card
    return {
        "key": card.key,
        "name": card.name,
        "pid": card.pid,
        "task_pid": card.task_pid or None,
        "state": card.state,
        "outcome": outcome,
        "snapshot": card.snapshot or None,
        "exit_code": card.exit_code,
        "reason": card.reason or None,
    }


def _for_people(result: dict[str, object]) -> str:
    who = f"{result['key']} (pid {result['pid']})"
    match result["outcome"]:
        case "announced":
            window_s = result["window_s"]
            assert isinstance(window_s, float)
            return f"{who} has {human_seconds(window_s)} to be saved"
        case "cancelled":
            return f"{who}: the notice was taken back"
        case "no-notice":
            return f"{who} had none to be taken back"
        case "saved":
            return (
                f"{who} is saved as {result['snapshot']}"
                if result["snapshot"]
                else f"{who} is saved"
            )
        case "ended":
            return f"{who} has ended by itself"
        case "failed":
            return f"error: {who} could not be saved: {result['reason'] or 'it has not told why'}"
        case "killed":
            return f"error: {who} was killed before its task was saved"
        case _:
            return f"error: {who} is not saved, and the window is over"


def _status(results: list[dict[str, object]]) -> int:
    for one in results:
        if one["outcome"] not in ("saved", "ended"):
            code = one["exit_code"]
            return code if isinstance(code, int) else EXIT_DUMP_FAILED
    return 0
