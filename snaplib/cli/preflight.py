"""``snaplib preflight``: what would make a dump or a restore fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from snaplib.checkpoint.preflight import preflight
from snaplib.cli.options import add_json, add_task
from snaplib.cli.output import emit_json, message, table
from snaplib.errors import EXIT_CANNOT_DUMP
from snaplib.task import Task

if TYPE_CHECKING:
    import argparse

    from snaplib.checkpoint.preflight import Obstacle

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_task(parser)
    add_json(parser)
    parser.add_argument(
        "--tcp",
        choices=("auto", "established", "close"),
        default="auto",
        help="what is to become of connected sockets (default: auto)",
    )


def run(args: argparse.Namespace) -> int:
    """Look for obstacles and print them."""
    with Task.attach(args.pid) as task:
        found = preflight(task, tcp=args.tcp)
    fatal = sum(one.fatal for one in found)
    if args.json:
        emit_json(
            {
                "pid": args.pid,
                "ok": not fatal,
                "obstacles": [attrs.asdict(one) for one in found],
            }
        )
    elif found:
        print(_text(found))
    if fatal:
        message(f"pid {args.pid} cannot be dumped and restored: {fatal} obstacle(s) are fatal")
    elif not args.json:
        message(f"pid {args.pid} can be dumped and restored")
    return EXIT_CANNOT_DUMP if fatal else 0


def _text(found: list[Obstacle]) -> str:
    """Return a table of what was found, and under it the remedies."""
    rows = [
        (one.severity, str(one.pid), one.comm, one.subject, one.code, one.message) for one in found
    ]
    lines = [table(("SEVERITY", "PID", "NAME", "WHERE", "CODE", "WHAT"), rows), ""]
    remedies = dict.fromkeys((one.code, one.remedy) for one in found)
    lines += [f"{code}: {remedy}" for code, remedy in remedies]
    return "\n".join(lines)
