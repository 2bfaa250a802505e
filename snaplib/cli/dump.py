"""``snaplib dump``: one snapshot now."""

from __future__ import annotations

import argparse
import time

from snaplib.checkpoint import TCP_MODES, dump
from snaplib.cli.options import add_json, add_store
from snaplib.cli.output import emit_json, human_bytes, human_seconds, message
from snaplib.store import Store
from snaplib.task import Task

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("pid", type=int, help="the task's root process")
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
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="give up after this time and let the task run on (default: 120)",
    )
    parser.add_argument(
        "--skip-preflight", action="store_true", help="try even what preflight says must fail"
    )
    parser.add_argument(
        "--tcp", choices=TCP_MODES, default="established", help="what becomes of connected sockets"
    )


def run(args: argparse.Namespace) -> int:
    """Dump the task."""
    task = Task.attach(args.pid)
    store = Store.open(args.store, create=True)
    began = time.monotonic()
    snapshot = dump(
        task,
        store,
        key=args.key,
        leave_running=args.leave_running,
        deadline_s=args.window,
        tcp=args.tcp,
        skip_preflight=args.skip_preflight,
    )
    dump_s = time.monotonic() - began
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
            }
        )
    else:
        print(snapshot.id)
        message(
            f"saved {human_bytes(snapshot.raw_bytes)} of memory as {human_bytes(snapshot.stored_bytes)} in "
            f"{human_seconds(dump_s)}, frozen {human_seconds(snapshot.timings['frozen_s'])}; "
            + ("the task runs on" if args.leave_running else "the task has ended")
        )
    return 0
