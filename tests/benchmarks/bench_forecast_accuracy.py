"""How far off forecasts are: real programs dumped again and again, each forecast without its own dumps.

``--collect`` measures and appends to the data file; it may be ended and run again, and stops by itself when its time
is up. Without it the data file is evaluated: each program is forecast from the dumps of all others.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import attrs
import numpy as np

import snaplib
from snaplib.checkpoint.calibration import calibrate
from snaplib.checkpoint.compressibility import sample_compression
from snaplib.errors import SnaplibError
from snaplib.forecasting import DumpRecord, Models, Work, work_of
from snaplib.history import History, models_for
from snaplib.track import MemoryKind, open_tracker
from snaplib.warm import WarmCopy
from tests.benchmarks.harness import machine
from tests.benchmarks.programs import Program, available, running
from tests.benchmarks.slowstore import ThrottledBackend

SUMMARY = (
    "forecasts of real programs' dumps against what came of them, each program left out in turn"
)

#: What the evaluation reads unless told otherwise: measured by `--collect`.
DATA = Path(__file__).parent.parent / "data" / "forecast-accuracy.jsonl"

#: Every so many dumps one goes to a throttled store, at one of these bandwidths, in bytes a second.
_THROTTLED_EVERY = 3
_BANDWIDTHS = (10e6, 20e6, 40e6, 80e6, 160e6)
#: Every so many dumps one is of what changed since a warm copy.
_DELTA_EVERY = 4
#: No throttled dump is to take longer than this.
_LONGEST_S = 20.0
WINDOWS_S = (1, 2, 3, 5, 8, 12, 20, 30, 60, 120)
#: Fusion advises at most 5 GiB of memory for each Gbit/s, for a window of 120 s.
_FUSION_BYTES_S = 125e6 / (5 * 2**30) * 120
_LEAST_BYTES = 30e6
_RELEARNED_EVERY = 4
_STORE = "the store"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--data", type=Path, default=DATA, help="the data file")
    parser.add_argument(
        "--collect", action="store_true", help="measure, and append to the data file"
    )
    parser.add_argument("--programs", default="", help="only these, with commas between")
    parser.add_argument("--dumps", type=int, default=18, help="dumps of each program to reach")
    parser.add_argument("--seconds", type=float, default=420.0, help="begin no program after this")
    parser.add_argument("--dir", default="/var/tmp", help="a folder on the disk to write to")


def run(args: argparse.Namespace) -> None:
    """Collect, or evaluate."""
    if args.collect:
        _collect(args)
    rows = _read(args.data)
    if not rows:
        print("there is no data: run it with --collect")
        return
    _evaluate(rows)


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


# -- measuring


def _collect(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        folder = Path(name)
        os.environ["SNAPLIB_STATE_DIR"] = str(folder / "state")
        store = snaplib.Store.open(folder / "store")
        if not any(row["program"].startswith("snaplib-") for row in _read(args.data)):
            for record in calibrate(store, budget_s=120).records:
                _append(args.data, record.program, record.work, None, record)
        end_s = time.monotonic() + args.seconds
        wanted = [one for one in args.programs.split(",") if one]
        programs = available(wanted)
        # Those with the fewest dumps first.
        counts = {one.name: _count(args.data, one.name) for one in programs}
        for program in sorted(programs, key=lambda one: counts[one.name]):
            if counts[program.name] >= args.dumps or time.monotonic() > end_s:
                continue
            work = folder / program.name
            work.mkdir()
            try:
                _measure(program, work, store, args=args, end_s=end_s)
            except SnaplibError as error:
                print(f"{program.name}: {error}", flush=True)


def _count(path: Path, program: str) -> int:
    return sum(row["program"] == program for row in _read(path))


def _append(
    path: Path, program: str, expected: Work, bandwidth: float | None, record: DumpRecord
) -> None:
    # Hosts and stores of the machine that measured are nobody's business.
    record = attrs.evolve(record, program=program, host="the host", store=_STORE)
    row = {
        "program": program,
        "bandwidth_bytes_s": bandwidth,
        "expected": attrs.asdict(expected),
        "record": record.to_json(),
    }
    with path.open("a") as file:
        file.write(json.dumps(_rounded(row), separators=(",", ":")) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if value < 1e6 else round(value)
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return value


def _measure(
    program: Program, folder: Path, store: snaplib.Store, *, args: argparse.Namespace, end_s: float
) -> None:
    done = _count(args.data, program.name)
    choose = random.Random(done)
    with running(program, folder) as pid:
        time.sleep(2)
        task = snaplib.Task.attach(pid)
        with snaplib.Watch(task, 0.25, arm="none") as watch:
            patience_s = time.monotonic() + 60
            while watch.profile().dumpable_bytes < _LEAST_BYTES and time.monotonic() < patience_s:
                watch.wait()
            for number in range(done, args.dumps):
                if time.monotonic() > end_s + 60:
                    return
                # Different ages, and nothing left to be written back by the dump before.
                time.sleep(choose.uniform(0.2, 1.2))
                os.sync()
                watch.wait(timeout_s=5)
                sample = sample_compression(task)
                bandwidth = _bandwidth(choose, number, watch.profile().dumpable_bytes, sample)
                if number % _DELTA_EVERY == _DELTA_EVERY - 1:
                    _measure_delta(program, task, watch, store=store, data=args.data, choose=choose)
                    continue
                profile = watch.wait(timeout_s=5) or watch.profile()
                target = store
                if bandwidth is not None:
                    target = snaplib.Store.over(ThrottledBackend(store.backend, bandwidth))
                forecast = snaplib.forecast(
                    profile, store=target, sample=sample, bandwidth_bytes_s=bandwidth
                )
                snapshot = snaplib.dump(task, target, plan=forecast, leave_running=True)
                store.remove(snapshot.id)
                record = History().records()[-1]
                _append(args.data, program.name, forecast.work, bandwidth, record)
    print(f"{program.name}: {_count(args.data, program.name)} dumps", flush=True)


def _measure_delta(
    program: Program,
    task: snaplib.Task,
    watch: snaplib.Watch,
    *,
    store: snaplib.Store,
    data: Path,
    choose: random.Random,
) -> None:
    """Copy ahead, wait, count what is missing, forecast, and dump that."""
    trackers: list[Any] = []

    def tracked(task: snaplib.Task) -> Any:
        trackers.append(open_tracker(task))
        return trackers[-1]

    with WarmCopy(task, store, open_tracker=tracked) as warm:
        warm.copy()
        warm.copy()
        copied_s = time.monotonic()
        time.sleep(choose.uniform(0.3, 6.0))
        sample = sample_compression(task)
        first_s, (before, _) = time.monotonic(), _missing(trackers[0])
        time.sleep(0.25)
        now_s, (dirty, runs) = time.monotonic(), _missing(trackers[0])
        profile = watch.profile()
        models = models_for(store=store)
        start_s = models.durations.phases_of(work_of(profile)).start_s
        expected = dirty + max(dirty - before, 0) / (now_s - first_s) * start_s
        forecast = snaplib.forecast(
            profile,
            store=store,
            sample=sample,
            warm_age_s=now_s - copied_s,
            warm_dirty_bytes=expected,
        )
        snapshot = snaplib.dump(
            task, store, warm=warm, plan=forecast.strategies[1], leave_running=True
        )
        record = History().records()[-1]
        work = attrs.evolve(
            work_of(profile, sample), sent_bytes=expected, runs=runs, incremental=True
        )
        if record.work.incremental:
            _append(data, program.name, work, None, record)
        else:
            print(f"{program.name}: a dump that should be incremental was full", flush=True)
    store.remove(snapshot.id)


def _missing(tracker: Any) -> tuple[float, int]:
    """Return the bytes that have changed since the last copy, and in how many places."""
    pages = runs = 0
    for process in tracker.scan(rearm=False).processes:
        for found in (process.runs, process.untracked):
            dumped = found[found["kind"] != MemoryKind.SHARED_FILE]
            pages += int(dumped["pages"].sum())
            runs += len(dumped)
    return pages * 4096.0, runs


def _bandwidth(choose: random.Random, number: int, size: float, sample: Any) -> float | None:
    if number % _THROTTLED_EVERY != 1:
        return None
    ratio = 1.0 if sample is None else sample.ratio
    quick = [one for one in _BANDWIDTHS if size * ratio / one < _LONGEST_S]
    return choose.choice(quick) if quick else None


# -- evaluating


def learned(path: Path = DATA) -> Models:
    """Return what the dumps of the data file teach of its host and its store."""
    records = [
        DumpRecord.from_json(row["record"])
        for row in _read(path)
        if row["bandwidth_bytes_s"] is None
    ]
    return Models.learn(records, host="the host", store=_STORE)


@attrs.frozen
class Judged:
    """A dump, and what was forecast for it by those who had not seen its program."""

    program: str
    record: DumpRecord
    bandwidth: float | None
    size_error: float
    duration_error: float
    covered: bool
    width: float
    fits: tuple[float, ...]
    fits_fusion: tuple[float, ...]
    fits_last: tuple[float, ...]


def judge(rows: list[dict[str, Any]]) -> list[Judged]:
    """Forecast each program's dumps from all others'."""
    parsed = [
        (
            row["program"],
            Work(**row["expected"]),
            row["bandwidth_bytes_s"],
            DumpRecord.from_json(row["record"]),
        )
        for row in rows
    ]
    found = []
    for program in sorted({name for name, *_ in parsed if not name.startswith("snaplib-")}):
        models = Models.learn(
            [
                attrs.evolve(record, store="throttled" if bandwidth else _STORE)
                for name, _, bandwidth, record in parsed
                if name != program
            ],
            host="the host",
            store=_STORE,
        )
        last_s: float | None = None
        for name, expected, bandwidth, record in parsed:
            if name == program:
                found.append(
                    _judged(
                        models, program, expected, bandwidth=bandwidth, record=record, last_s=last_s
                    )
                )
                last_s = record.phases.total_s
    return found


def judge_in_use(rows: list[dict[str, Any]]) -> list[Judged]:
    """Forecast each dump from all dumps before it, its own program's too, as it is in use."""
    ordered = sorted(rows, key=lambda row: row["record"]["time_s"])
    found: list[Judged] = []
    past: list[DumpRecord] = []
    last_s: dict[str, float] = {}
    models = Models.learn()
    for number, row in enumerate(ordered):
        record = DumpRecord.from_json(row["record"])
        bandwidth = row["bandwidth_bytes_s"]
        if number % _RELEARNED_EVERY == 0:
            models = Models.learn(past, host="the host", store=_STORE)
        if not row["program"].startswith("snaplib-"):
            found.append(
                _judged(
                    models,
                    row["program"],
                    Work(**row["expected"]),
                    bandwidth=bandwidth,
                    record=record,
                    last_s=last_s.get(row["program"]),
                )
            )
            last_s[row["program"]] = record.phases.total_s
        past.append(attrs.evolve(record, store="throttled" if bandwidth else _STORE))
    return found


def _judged(
    models: Models,
    program: str,
    expected: Work,
    *,
    bandwidth: float | None,
    record: DumpRecord,
    last_s: float | None,
) -> Judged:
    total_s = models.durations.phases_of(expected, bandwidth).total_s
    scatter = models.normaliser_of(expected)
    interval = models.duration.around(total_s, scatter)
    actual_s = record.phases.total_s
    spread = models.delta if expected.incremental else models.full
    size = spread.around(expected.sent_bytes).median
    way = bandwidth or models.durations.pipeline.store_bytes_s
    return Judged(
        program,
        record,
        bandwidth,
        abs(size / record.work.sent_bytes - 1),
        abs(interval.median / actual_s - 1),
        actual_s in interval,
        interval.width,
        tuple(models.duration.below(total_s, window, scatter) for window in WINDOWS_S),
        tuple(float(expected.sent_bytes / way <= window / _FUSION_BYTES_S) for window in WINDOWS_S),
        tuple(0.5 if last_s is None else float(last_s <= window) for window in WINDOWS_S),
    )


def brier(judged: list[Judged], field: str) -> float:
    """Return the mean square of probability minus outcome, over all windows."""
    squares = [
        (probability - float(one.record.phases.total_s <= window)) ** 2
        for one in judged
        for probability, window in zip(getattr(one, field), WINDOWS_S, strict=True)
    ]
    return float(np.mean(squares))


def _evaluate(rows: list[dict[str, Any]]) -> None:
    judged = judge(rows)
    print(f"{machine()}; host of the data may differ")
    print(f"{len(judged)} dumps of {len({one.program for one in judged})} programs")
    print(
        "| program | dumps | MB | s | size error, median / 95 % | duration error, median | covered | width |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for program in sorted({one.program for one in judged}):
        print(_line(program, [one for one in judged if one.program == program]))
    print(_line("**all**", judged))
    free = [one for one in judged if one.bandwidth is None]
    throttled = [one for one in judged if one.bandwidth is not None]
    print(_line("full", [one for one in free if not one.record.work.incremental]))
    print(_line("delta", [one for one in free if one.record.work.incremental]))
    print(_line("throttled", throttled))
    print(_line("in use: from all dumps before", judge_in_use(rows)))
    print(
        "| Brier score over windows of 1 to 120 s | forecast | Fusion's ratio | last dump's time |"
    )
    print("|---|---|---|---|")
    for name, some in (("all", judged), ("throttled", throttled)):
        if some:
            scores = [brier(some, field) for field in ("fits", "fits_fusion", "fits_last")]
            print(f"| {name} | " + " | ".join(f"{score:.4f}" for score in scores) + " |")


def _line(name: str, judged: list[Judged]) -> str:
    if not judged:
        return f"| {name} | 0 | | | | | | |"
    sizes = [one.size_error for one in judged]
    return (
        f"| {name} | {len(judged)} | {np.median([one.record.work.sent_bytes for one in judged]) / 1e6:.0f} | "
        f"{np.median([one.record.phases.total_s for one in judged]):.2f} | "
        f"{np.median(sizes):.2%} / {np.quantile(sizes, 0.95):.2%} | "
        f"{np.median([one.duration_error for one in judged]):.1%} | "
        f"{np.mean([one.covered for one in judged]):.1%} | {np.median([one.width for one in judged]):.2f} |"
    )
