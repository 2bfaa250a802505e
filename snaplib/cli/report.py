"""``snaplib report``: what snapshots were worth."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from snaplib.cli.options import add_json, add_store, zero_or_more
from snaplib.cli.output import emit_json, human_bytes, human_seconds, message, table
from snaplib.cli.printable import printable
from snaplib.errors import UsageError
from snaplib.report import KeySummary, Report, prometheus_text, summarize
from snaplib.store import Store

if TYPE_CHECKING:
    import argparse

__all__ = ["configure", "run"]

_HOUR_S = 3600.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_store(parser)
    parser.add_argument(
        "--key", action="append", default=[], help="only this key; may be given several times"
    )
    parser.add_argument(
        "--price",
        type=zero_or_more("money"),
        metavar="PRICE",
        help="what an hour of the machine costs, in any currency: tells what was kept and lost in it",
    )
    parser.add_argument(
        "--prometheus",
        metavar="FILE",
        help="write the figures to FILE as Prometheus' text format, whole or not at all",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Report on the journal of a store."""
    store = Store.open(args.store, create=False)
    report = summarize(store.runs(), args.key)
    if args.prometheus:
        _write(Path(args.prometheus), prometheus_text(report))
    if args.json:
        emit_json(
            {
                "store": store.url,
                **_figures(report.total, args.price),
                "keys": [{"key": one.key, **_figures(one, args.price)} for one in report.keys],
            }
        )
    elif not report.keys:
        message(f"no runs in the journal of {store.url}")
    else:
        _print(report, args.price)
    return 0


def _figures(one: KeySummary, price: float | None) -> dict[str, Any]:
    figures = attrs.asdict(one)
    del figures["key"]
    if price is not None:
        figures["kept_cost"] = one.kept_s / _HOUR_S * price
        figures["lost_cost"] = one.lost_s / _HOUR_S * price
        figures["spent_cost"] = _stood_still_s(one) / _HOUR_S * price
    return figures


def _stood_still_s(one: KeySummary) -> float:
    """Seconds in which the machine was paid for and the task did nothing."""
    return one.frozen_s + one.restore_s


def _print(report: Report, price: float | None) -> None:
    header = ["KEY", "RUNS", "INTERRUPTED", "SAVED", "RESUMED", "KEPT", "LOST", "FROZEN", "STORED"]
    rows = [_row(printable(one.key), one) for one in report.keys]
    if len(rows) > 1:
        rows.append(_row("all", report.total))
    print(table(header, rows))
    total = report.total
    print()
    print(
        f"{total.interruptions} interruptions: {total.saved} saved, {total.resumed} of them resumed, "
        f"{total.waiting} to be resumed; {total.cut_off} cut off"
    )
    print(
        f"{human_seconds(total.kept_s)} of work kept, {human_seconds(total.lost_s)} lost; dumps took "
        f"{human_seconds(total.dump_s)} ({human_seconds(total.frozen_s)} frozen), restores "
        f"{human_seconds(total.restore_s)}, {human_bytes(total.stored_bytes)} stored"
    )
    if total.forecast_error is not None:
        print(
            f"forecasts of {total.forecasts} dumps: off by {total.forecast_error:.0%} of the time (median)"
        )
    if price is not None:
        costs = _figures(total, price)
        print(
            f"at {price:g} an hour: {costs['kept_cost']:.2f} kept, {costs['lost_cost']:.2f} lost, "
            f"{costs['spent_cost']:.2f} spent standing still"
        )


def _row(name: str, one: KeySummary) -> list[str]:
    return [
        name,
        str(one.runs),
        str(one.interruptions),
        str(one.saved),
        str(one.resumed),
        human_seconds(one.kept_s),
        human_seconds(one.lost_s),
        human_seconds(one.frozen_s),
        human_bytes(one.stored_bytes),
    ]


def _write(path: Path, text: str) -> None:
    """Replace a file at once: the collector may look at any time."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        temporary.rename(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UsageError(
            f"{path} cannot be written: {error.strerror}", hint="name another file"
        ) from error
