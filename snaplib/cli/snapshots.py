"""`snaplib snapshots`: what a store holds."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from snaplib.cli.options import add_json, add_store
from snaplib.cli.output import emit_json, human_bytes, human_seconds, message, table
from snaplib.cli.printable import printable
from snaplib.errors import SnaplibError
from snaplib.store import Store

if TYPE_CHECKING:
    import argparse

    from snaplib.store import Snapshot

__all__ = ["configure", "run"]

_COMMAND_CHARACTERS = 40


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_store(parser)
    parser.add_argument("--key", help="only the snapshots of this key")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """List the snapshots, newest first."""
    store = Store.open(args.store, create=False)
    errors: list[SnaplibError] = []
    snapshots = store.snapshots(args.key, on_error=errors.append)
    if args.json:
        emit_json(
            {
                "store": store.url,
                "snapshots": [snapshot.to_dict() for snapshot in snapshots],
                "errors": [str(error) for error in errors],
            }
        )
    elif snapshots:
        header = ("ID", "KEY", "WHEN", "COMMAND", "SIZE", "STORED", "PAGES", "FROZEN")
        print(table(header, [_row(snapshot) for snapshot in snapshots]))
    else:
        message(f"no snapshots in {store.url}" + (f" of key {args.key!r}" if args.key else ""))
    if not args.json:
        for error in errors:
            message(f"error: {error}")
    return errors[0].exit_code if errors else 0


def _row(snapshot: Snapshot) -> list[str]:
    command = shlex.join(str(word) for word in snapshot.task.get("command", ()))
    if len(command) > _COMMAND_CHARACTERS:
        command = command[: _COMMAND_CHARACTERS - 1] + "…"
    frozen_s = snapshot.timings.get("frozen_s")
    return [
        snapshot.id,
        printable(snapshot.key),
        snapshot.created.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        printable(command),
        human_bytes(snapshot.raw_bytes),
        human_bytes(snapshot.stored_bytes),
        str(snapshot.pages),
        "" if frozen_s is None else human_seconds(frozen_s),
    ]
