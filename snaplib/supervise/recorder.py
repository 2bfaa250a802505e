"""Writing the journal: one run, as its events tell it."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable
from typing import Any

import attrs

from snaplib.errors import StoreError
from snaplib.event import Event
from snaplib.store import RunRecord, Store
from snaplib.supervise.job import Job

__all__ = ["Recorder"]

_BEGINNINGS = ("started", "restored", "adopted")
#: Event -> how the run came out.  Without one of these it has no end in the journal.
_OUTCOMES = {"saved": "saved", "ended": "ended", "killed": "killed", "failed": "failed"}
#: How long a store may take for the end of a run.
_PATIENCE_S = 5.0
#: What of an event's figures the journal keeps, where it is a number.
_KEPT = (
    "restore_s",
    "window_s",
    "notice_to_dump_s",
    "dump_s",
    "frozen_s",
    "memory_bytes",
    "stored_bytes",
    "forecast_s",
    "forecast_bytes",
)


class Recorder:
    """Hears the events of one supervisor, and puts its run into the store's journal.

    A journal that cannot be written must not cost a task: what goes wrong here is not raised.

    Args:
        store: Where the journal is.
        key: The supervisor's key.
        command: What it runs.
        clock: Tells the time in seconds, never backwards.
    """

    def __init__(
        self,
        store: Store,
        key: str,
        command: tuple[str, ...],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._journal = store.journal(key)
        self._command = command
        self._clock = clock
        self._began_s = 0.0
        self._figures: dict[str, float] = {}
        self._source = ""
        #: The run, once it has begun; its result is the record.
        self._putting: Job | None = None

    def __call__(self, event: Event) -> None:
        """Hear an event."""
        details = event.details
        self._figures |= {
            name: float(details[name])
            for name in _KEPT
            if isinstance(details.get(name), int | float)
        }
        if event.name in _BEGINNINGS and self._putting is None:
            self._begin(event.name, details)
        elif event.name == "notice":
            self._source = str(details.get("source", ""))
        elif event.name == "dump_failed":
            self._count("dump_failures", 1)
        elif event.name == "copied":
            self._count("copies", 1)
            self._count("copy_s", details.get("copy_s", 0.0))
            self._count("copied_bytes", details.get("copied_bytes", 0))
        elif event.name == "snapshot":
            self._count("snapshots", 1)
            self._count("copy_s", details.get("copy_s", 0.0))
        elif event.name in _OUTCOMES:
            self._end(_OUTCOMES[event.name], details)

    def _count(self, name: str, amount: float) -> None:
        self._figures[name] = self._figures.get(name, 0.0) + amount

    def _begin(self, how: str, details: dict[str, Any]) -> None:
        record = self._journal.begin(
            how, snapshot=details.get("snapshot"), host=platform.node(), command=self._command
        )
        self._began_s = self._clock()
        # A bucket may take its time, and a notice must not wait for it.
        self._putting = Job("journal", lambda: self._put_begin(record), lambda _job: None)

    def _end(self, outcome: str, details: dict[str, Any]) -> None:
        if self._putting is None:
            return
        # Who waits for the end of this run does not wait for a store that does not answer.
        ends_s = self._clock() + _PATIENCE_S
        self._store.backend.limit_by(lambda: ends_s - self._clock())
        try:
            self._put_end(self._putting.result(), outcome, details)
        finally:
            self._store.backend.limit_by(None)

    def _put_end(self, begun: RunRecord, outcome: str, details: dict[str, Any]) -> None:
        record = attrs.evolve(
            begun,
            outcome=outcome,
            exit_code=details.get("exit_code") if outcome in ("ended", "killed") else None,
            signal=details.get("signal"),
            saved_as=details.get("snapshot") if outcome == "saved" else None,
            alive_s=self._clock() - self._began_s,
            figures=self._figures,
            source=self._source,
        )
        with contextlib.suppress(StoreError):
            self._journal.put_end(record)

    def _put_begin(self, record: RunRecord) -> RunRecord:
        """Put a run's beginning; return its record, whether that could be done or not."""
        with contextlib.suppress(StoreError):
            return self._journal.put_begin(record)
        return record
