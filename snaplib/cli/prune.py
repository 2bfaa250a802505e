"""``snaplib prune``: remove snapshots by number and age."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from snaplib.cli.options import add_json, add_store, whole
from snaplib.cli.output import emit_json, message
from snaplib.errors import SnaplibError, UsageError
from snaplib.store import Store

if TYPE_CHECKING:
    import argparse

__all__ = ["configure", "run"]

_AGE = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[smhdw]?)")
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_store(parser)
    parser.add_argument("--key", help="only the snapshots of this key")
    parser.add_argument(
        "--keep",
        type=whole(0),
        metavar="N",
        help="spare the newest N of each key, whatever their age",
    )
    parser.add_argument(
        "--older-than",
        metavar="AGE",
        help="spare what is younger: a number with s, m, h, d or w, such as 36h or 7d",
    )
    parser.add_argument("--dry-run", action="store_true", help="only tell what would go")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Remove what neither option spares."""
    if args.keep is None and args.older_than is None:
        raise UsageError("nothing says what may go", hint="give --keep, --older-than or both")
    store = Store.open(args.store, create=False)
    errors: list[SnaplibError] = []
    removed = store.prune(
        args.key,
        keep=args.keep or 0,
        older_than_s=_seconds(args.older_than) if args.older_than is not None else 0.0,
        dry_run=args.dry_run,
        on_error=errors.append,
    )
    if args.json:
        emit_json(
            {
                "store": store.url,
                "dry_run": args.dry_run,
                "removed": [snapshot.id for snapshot in removed],
                "errors": [str(error) for error in errors],
            }
        )
    else:
        for snapshot in removed:
            print(snapshot.id)
        verb = "would be removed" if args.dry_run else "removed"
        message(f"{len(removed)} snapshots {verb}")
        for error in errors:
            message(f"error: {error}")
    return errors[0].exit_code if errors else 0


def _seconds(text: str) -> float:
    found = _AGE.fullmatch(text.strip())
    if not found:
        raise UsageError(
            f"an age of {text!r} cannot be meant", hint="write a number and s, m, h, d or w"
        )
    return float(found["number"]) * _UNITS_S[found["unit"]]
