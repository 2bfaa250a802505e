"""What became of the runs of each key, in compute-seconds: those of a task's wall time, whatever it did in them."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Sequence

import attrs

from snaplib.store import RunRecord
from snaplib.store.names import time_of

__all__ = ["KeySummary", "Report", "summarize"]


@attrs.frozen
class KeySummary:
    """The runs of one key, or of all.

    Attributes:
        key: The key; empty for all together.
        runs: How many runs there were.
        interruptions: How many of them were saved, were cut off, or failed to be saved.
        saved: How many were saved.
        resumed: How many of those went on.
        waiting: How many wait to be resumed.
        cut_off: How many ended with their machine or supervisor, without a word, or were killed.
        ended: How many tasks ended by themselves.
        open: How many go on, or were cut off and not run again.
        kept_s: Compute-seconds that a snapshot kept from being lost.
        lost_s: Compute-seconds that were lost; of runs that were cut off, at most.
        ended_s: Compute-seconds of the runs in which tasks ended.
        restore_s: Seconds spent on restores.
        dump_s: On dumps.
        frozen_s: In which tasks stood still for dumps.
        copy_s: On copies ahead, while tasks ran.
        stored_bytes: Bytes that dumps stored.
        dump_failures: Dumps that failed, whatever came after.
        forecasts: Dumps of which there was a forecast.
        forecast_error: The median of its error in seconds, relative to what it took; None without one.
    """

    key: str = ""
    runs: int = 0
    interruptions: int = 0
    saved: int = 0
    resumed: int = 0
    waiting: int = 0
    cut_off: int = 0
    ended: int = 0
    open: int = 0
    kept_s: float = 0.0
    lost_s: float = 0.0
    ended_s: float = 0.0
    restore_s: float = 0.0
    dump_s: float = 0.0
    frozen_s: float = 0.0
    copy_s: float = 0.0
    stored_bytes: int = 0
    dump_failures: int = 0
    forecasts: int = 0
    forecast_error: float | None = None


@attrs.frozen
class Report:
    """A store's runs.

    Attributes:
        keys: What became of each key, by its name.
        total: All together.
    """

    keys: tuple[KeySummary, ...]
    total: KeySummary


#: Figures that are added up as the journal has them.
_SUMMED = ("restore_s", "dump_s", "frozen_s", "copy_s")


def summarize(runs: Iterable[RunRecord], keys: Sequence[str] = ()) -> Report:
    """Return what became of runs.

    Args:
        runs: The runs, of any keys, in any order.
        keys: Only these; all by default.
    """
    chosen = [run for run in runs if not keys or run.key in keys]
    chosen.sort(key=lambda run: (run.key, run.began_at, run.id))
    summaries = [
        _summary(key, list(group)) for key, group in itertools.groupby(chosen, lambda run: run.key)
    ]
    return Report(tuple(summaries), _total(summaries, chosen))


def _summary(key: str, runs: list[RunRecord]) -> KeySummary:
    counts = dict.fromkeys(
        ("interruptions", "saved", "resumed", "waiting", "cut_off", "ended", "open"), 0
    )
    seconds = dict.fromkeys(("kept_s", "lost_s", "ended_s"), 0.0)
    # What a task did before its supervisor changed: it is lost or kept with what it does after that.
    carried_s = 0.0
    for run, after in itertools.zip_longest(runs, runs[1:]):
        worth_s = carried_s + _alive_s(run, after)
        if after is not None and after.how == "adopted" and run.outcome in (None, "failed"):
            carried_s = worth_s
            continue
        carried_s = 0.0
        if run.outcome == "ended":
            counts["ended"] += 1
            seconds["ended_s"] += worth_s
        elif run.outcome is None and after is None:
            counts["open"] += 1
        else:
            counts["interruptions"] += 1
            fate = _fate(run, after)
            counts["saved"] += run.outcome == "saved"
            counts["cut_off"] += run.outcome in (None, "killed")
            counts["resumed"] += fate == "resumed"
            counts["waiting"] += fate == "waiting"
            kept_s = worth_s if fate != "lost" else min(worth_s, _saved_ahead_s(run, after))
            seconds["kept_s"] += kept_s
            seconds["lost_s"] += worth_s - kept_s
    return KeySummary(key, len(runs), **counts, **seconds, **_spent(runs))  # type: ignore[arg-type]


def _alive_s(run: RunRecord, after: RunRecord | None) -> float:
    if run.ended_at is not None:
        return run.alive_s
    # It was cut off at some time before the next one began.
    return max(0.0, (after.began - run.began).total_seconds()) if after is not None else 0.0


def _fate(run: RunRecord, after: RunRecord | None) -> str:
    if run.outcome != "saved":
        return "lost"
    if after is None:
        return "waiting"
    return "resumed" if after.how == "restored" else "lost"


def _saved_ahead_s(run: RunRecord, after: RunRecord | None) -> float:
    """Return the seconds of a run up to the snapshot made while it ran that the next one went on from."""
    if after is None or after.snapshot is None or after.snapshot == run.snapshot:
        return 0.0
    return max(0.0, (time_of(after.snapshot) - run.began).total_seconds())


def _spent(runs: Sequence[RunRecord]) -> dict[str, float | int | None]:
    spent: dict[str, float | int | None] = {
        name: sum(run.figures.get(name, 0.0) for run in runs) for name in _SUMMED
    }
    for name in ("stored_bytes", "dump_failures"):
        spent[name] = int(sum(run.figures.get(name, 0) for run in runs))
    errors = [
        abs(run.figures["forecast_s"] - run.figures["dump_s"]) / run.figures["dump_s"]
        for run in runs
        if run.figures.get("dump_s") and "forecast_s" in run.figures
    ]
    return spent | {
        "forecasts": len(errors),
        "forecast_error": statistics.median(errors) if errors else None,
    }


def _total(summaries: Sequence[KeySummary], runs: Sequence[RunRecord]) -> KeySummary:
    names = [
        field.name
        for field in attrs.fields(KeySummary)
        if field.name not in ("key", "forecast_error", "forecasts")
    ]
    sums = {name: sum(getattr(one, name) for one in summaries) for name in names}
    spent = _spent(runs)
    return KeySummary(
        **sums,
        forecasts=spent["forecasts"],  # type: ignore[arg-type]
        forecast_error=spent["forecast_error"],
    )
