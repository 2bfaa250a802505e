"""``snaplib calibrate``: measures this host and the way to the store."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from snaplib.cli.options import above_zero, add_json, add_store
from snaplib.cli.output import emit_json, human_bytes, human_seconds, message, table
from snaplib.errors import RootRequired

if TYPE_CHECKING:
    from snaplib.checkpoint.calibration import Calibration
    from snaplib.forecasting import Models

__all__ = ["configure", "run"]

#: Tasks for which the result is shown.
_EXAMPLES_GIB = (0.1, 1, 8)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_store(parser)
    add_json(parser)
    parser.add_argument(
        "--budget",
        type=above_zero("seconds"),
        default=30.0,
        metavar="SECONDS",
        help="begin no further dump after this time (default: 30)",
    )
    parser.add_argument(
        "--forget", action="store_true", help="delete the history of dumps before it begins"
    )


def run(args: argparse.Namespace) -> int:
    """Measure, and print what was found."""
    # Late: the parser must be there before what dumps need is.
    from snaplib.checkpoint.calibration import calibrate  # noqa: PLC0415
    from snaplib.history import History, models_for  # noqa: PLC0415
    from snaplib.store import Store  # noqa: PLC0415

    if os.geteuid() != 0:
        raise RootRequired("dumping a task needs root")
    store = Store.open(args.store, create=True)
    if args.forget:
        History().forget()
    measured = calibrate(
        store,
        budget_s=args.budget,
        progress=lambda name, number, count: message(f"{number} of {count}: {name}"),
    )
    models = models_for(store=store)
    if args.json:
        emit_json(_as_json(measured, models))
    else:
        _print(measured, models)
    return 0


def _as_json(measured: Calibration, models: Models) -> dict[str, object]:
    pipeline = models.durations.pipeline
    return {
        "dumps": len(measured.records),
        "seconds": measured.seconds,
        "cut_short": measured.cut_short,
        "memory_bytes_s": pipeline.memory_bytes_s,
        "codec_bytes_s": pipeline.codec_bytes_s,
        "store_bytes_s": pipeline.store_bytes_s,
        "records": [record.to_json() for record in measured.records],
        "known_dumps": models.count,
        "notes": list(models.notes),
    }


def _print(measured: Calibration, models: Models) -> None:
    pipeline = models.durations.pipeline
    rows = [
        [
            record.program.rpartition("-")[2],
            human_bytes(record.work.sent_bytes),
            f"{record.work.processes:.0f}",
            *(
                human_seconds(seconds)
                for seconds in (
                    record.phases.start_s,
                    record.phases.walk_s,
                    record.phases.memory_s,
                    record.phases.commit_s,
                )
            ),
        ]
        for record in measured.records
    ]
    print(
        table(("TASK", "MEMORY", "PROCESSES", "START", "WALK", "PAGES", "COMMIT"), rows), end="\n\n"
    )
    print(f"pages are received at {human_bytes(pipeline.memory_bytes_s)}/s,")
    print(f"compressed at {human_bytes(pipeline.codec_bytes_s)}/s,")
    print(f"and stored at {human_bytes(pipeline.store_bytes_s)}/s", end="\n\n")
    print(
        table(
            ("A TASK OF", "IS DUMPED IN", "95 % BETWEEN"),
            [_example(models, gib) for gib in _EXAMPLES_GIB],
        )
    )
    message(
        f"measured {len(measured.records)} dumps in {human_seconds(measured.seconds)}"
        + ("; there was no time for more" if measured.cut_short else "")
    )
    for note in models.notes:
        message(note)


def _example(models: Models, gib: float) -> list[str]:
    from snaplib.forecasting import Work  # noqa: PLC0415  imported already

    size = gib * 2**30
    work = Work(mappings=100, resident_bytes=size, sent_bytes=size)
    interval = models.duration.around(
        models.durations.phases_of(work).total_s, models.normaliser_of(work)
    )
    return [
        human_bytes(size),
        human_seconds(interval.median),
        f"{human_seconds(interval.low)} and {human_seconds(interval.high)}",
    ]
