"""``snaplib dump``: one snapshot now."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from snaplib.checkpoint import TCP_MODES, dump
from snaplib.cli.eventlog import EventLog
from snaplib.cli.options import above_zero, add_files, add_json, add_store, add_task
from snaplib.cli.output import emit_json, human_bytes, human_seconds, message
from snaplib.errors import SnaplibError
from snaplib.event import Event
from snaplib.store import Snapshot, Store
from snaplib.task import Task

if TYPE_CHECKING:
    from snaplib.forecasting import Forecast

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_task(parser)
    add_store(parser)
    add_json(parser)
    parser.add_argument(
        "--key", help="what the snapshot is found by (default: from folder and command)"
    )
    parser.add_argument(
        "--leave-running", action="store_true", help="let the task run on afterwards"
    )
    parser.add_argument(
        "--window",
        type=above_zero("seconds"),
        default=120.0,
        metavar="SECONDS",
        help="give up after this time and let the task run on (default: 120)",
    )
    parser.add_argument(
        "--skip-preflight", action="store_true", help="try even what preflight says must fail"
    )
    parser.add_argument(
        "--tcp",
        choices=TCP_MODES,
        default="auto",
        help="what becomes of connected sockets; with auto the restore decides for each (default: auto)",
    )
    parser.add_argument(
        "--events",
        metavar="FILE",
        help="append one JSON line to FILE that tells what was forecast and what came of it",
    )
    add_files(parser)


def run(args: argparse.Namespace) -> int:
    """Dump the task."""
    with EventLog(args.events, quiet=True) as log:
        task = Task.attach(args.pid)
        # Now: of a task that has ended it cannot be told any more.
        key = args.key or (task.key if args.events else "")
        try:
            return _dump(task, args, log)
        except SnaplibError as error:
            details = {"reason": error.message, "exit_code": error.exit_code}
            log(Event("dump_failed", time.time(), key, details, "running"))
            raise


def _dump(task: Task, args: argparse.Namespace, log: EventLog) -> int:
    store = Store.open(args.store, create=True)
    expected = _forecast(task, store, args.window)
    began = time.monotonic()
    snapshot = dump(
        task,
        store,
        key=args.key,
        leave_running=args.leave_running,
        deadline_s=args.window,
        tcp=args.tcp,
        files=args.files,
        capture=args.capture,
        skip_preflight=args.skip_preflight,
        plan=expected,
    )
    dump_s = time.monotonic() - began
    if args.events:
        _tell(snapshot, dump_s, args, log)
    if args.json:
        emit_json(
            {
                "id": snapshot.id,
                "key": snapshot.key,
                "memory_bytes": snapshot.raw_bytes,
                "stored_bytes": snapshot.stored_bytes,
                "pages": snapshot.pages,
                "dump_s": dump_s,
                "frozen_s": snapshot.timings["frozen_s"],
                "left_running": args.leave_running,
                "forecast": snapshot.extra.get("forecast"),
            }
        )
    else:
        print(snapshot.id)
        message(
            f"saved {human_bytes(snapshot.raw_bytes)} of memory as {human_bytes(snapshot.stored_bytes)} in "
            f"{human_seconds(dump_s)}, frozen {human_seconds(snapshot.timings['frozen_s'])}; "
            + ("the task runs on" if args.leave_running else "the task has ended")
        )
        size, duration = expected.full.size_bytes, expected.full.duration_s
        message(
            f"forecast: {human_bytes(size.median)} in {human_seconds(duration.median)} "
            f"({human_seconds(duration.low)} to {human_seconds(duration.high)})"
        )
    return 0


def _tell(snapshot: Snapshot, dump_s: float, args: argparse.Namespace, log: EventLog) -> None:
    # Late: it brings all that looks after a task, which nothing else here needs.
    from snaplib.supervise.figures import snapshot_figures  # noqa: PLC0415

    name, state = ("snapshot", "running") if args.leave_running else ("saved", "saved")
    details = {**snapshot_figures(snapshot), "dump_s": dump_s}
    log(Event(name, time.time(), snapshot.key, details, state))


def _forecast(task: Task, store: Store, window_s: float) -> Forecast:
    """Return what is expected of the dump: a look at the task takes some 50 ms."""
    # Late: eBPF and what else a watch needs.
    from snaplib.history import forecast  # noqa: PLC0415
    from snaplib.observe import Watch  # noqa: PLC0415

    with Watch(task, arm="none", source="proc") as watch:
        return forecast(watch.profile(), store=store, window_s=max(window_s, 0.0))
