"""`snaplib verify`: check every byte of snapshots."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from snaplib.cli.options import add_json, add_store
from snaplib.cli.output import emit_json, human_bytes, message
from snaplib.errors import EXIT_RESTORE_FAILED, UsageError
from snaplib.store import Store

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from snaplib.store import Verification

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "snapshot", metavar="ID", nargs="?", help="the snapshot, or the beginning of its id"
    )
    parser.add_argument("--all", action="store_true", help="all snapshots, as without an ID")
    add_store(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Check and report; 176 if anything is damaged."""
    if args.snapshot and args.all:
        raise UsageError("an ID and --all contradict each other")
    store = Store.open(args.store, create=False)
    results = []
    for snapshot_id in [args.snapshot] if args.snapshot else store.ids():
        with _progress(snapshot_id) as progress:
            result = store.verify(snapshot_id, progress)
        results.append(result)
        if not args.json:
            _report(result)
    if args.json:
        emit_json(
            {
                "store": store.url,
                "ok": all(result.ok for result in results),
                "snapshots": [_fields(result) for result in results],
            }
        )
    elif not results:
        message(f"no snapshots in {store.url}")
    return 0 if all(result.ok for result in results) else EXIT_RESTORE_FAILED


def _report(result: Verification) -> None:
    if result.ok:
        print(f"{result.id}: whole, {human_bytes(result.checked_bytes)} checked")
    for finding in result.findings:
        print(f"{result.id}: damaged: {finding}")


def _fields(result: Verification) -> dict[str, object]:
    return {
        "id": result.id,
        "ok": result.ok,
        "checked_bytes": result.checked_bytes,
        "findings": [
            {"object": finding.object, "offset": finding.offset, "problem": finding.problem}
            for finding in result.findings
        ],
    }


@contextlib.contextmanager
def _progress(snapshot_id: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar on a terminal, and nothing elsewhere: the result follows anyway."""
    if not sys.stderr.isatty():
        yield None
        return
    # Late, because importing it takes longer than most checks.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        Progress,
        TransferSpeedColumn,
    )

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(snapshot_id, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)
