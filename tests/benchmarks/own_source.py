"""A supervised task whose notices come from a source of one's own.

``python -m tests.benchmarks.own_source --fifo FIFO --events FILE -- CMD ...``: a line through the FIFO is notice.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from pathlib import Path

from snaplib import Store, Supervisor
from snaplib.cli.eventlog import EventLog
from snaplib.reclaim import Notice
from snaplib.reclaim.source import Report


class FromFifo:
    """Gives notice when somebody writes a line.

    Args:
        path: The FIFO.
    """

    name = "fifo"
    window_s = 120.0

    def __init__(self, path: Path) -> None:
        self._path = path

    def watch(self, report: Report, stop: threading.Event) -> None:
        """Wait for the line."""
        with self._path.open() as fifo:
            if fifo.readline() and not stop.is_set():
                report(Notice(self.name, 120.0))

    def acknowledge(self) -> None:
        """Nobody wants to hear it."""


def main() -> int:
    """Supervise one task."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fifo", type=Path, required=True)
    parser.add_argument("--events")
    parser.add_argument("-q", "--quiet", action="store_true")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    with EventLog(args.events, quiet=args.quiet) as log:
        supervisor = Supervisor(
            args.command[1:],
            store=Store.open(os.environ["SNAPLIB_STORE"]),
            reclaim=[FromFifo(args.fifo)],
            on_event=log,
        )
        return supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
