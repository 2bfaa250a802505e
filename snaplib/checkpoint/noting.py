"""What a dump had to do and how long it took, for the history that forecasts learn from."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from snaplib.errors import SnaplibError
from snaplib.forecasting import (
    DumpRecord,
    Forecast,
    Phases,
    Promise,
    Rates,
    StrategyForecast,
    Work,
)
from snaplib.history import History, forecast, host_identity, store_identity
from snaplib.planning import Plan
from snaplib.store import Snapshot, Store, Throughput
from snaplib.store.balance import CodecFigures
from snaplib.task import Task

if TYPE_CHECKING:
    from snaplib.observe import Watch

__all__ = [
    "CALIBRATION",
    "Stopwatch",
    "measure_work",
    "note",
    "promise_from",
    "promise_json",
    "promise_of",
]


#: Keys of snapshots that were made to measure begin so.
CALIBRATION = "snaplib-calibration"


@attrs.define
class Stopwatch:
    """When the phases of one dump began (CLOCK_MONOTONIC).

    Attributes:
        began_s: The dump was asked for.
        frozen_s: The task stands still.
        received_s: All pages have been received.
        durable_s: The snapshot exists.
        receiving_s: Seconds in which pages were under way.
    """

    began_s: float = attrs.field(factory=time.monotonic)
    frozen_s: float | None = None
    received_s: float | None = None
    durable_s: float | None = None
    receiving_s: float = 0.0

    def phases(self) -> Phases | None:
        """Return the seconds of each phase; None where one did not come about."""
        if self.frozen_s is None or self.received_s is None or self.durable_s is None:
            return None
        sent_s = self.received_s - self.frozen_s
        memory_s = min(self.receiving_s, sent_s)
        return Phases(
            start_s=max(self.frozen_s - self.began_s, 0.0),
            walk_s=max(sent_s - memory_s, 0.0),
            memory_s=memory_s,
            commit_s=max(self.durable_s - self.received_s, 0.0),
        )


def measure_work(task: Task) -> Work:
    """Return what a dump of a task has to do, but for the bytes; takes a millisecond or two.

    Args:
        task: The task.

    Raises:
        TaskEnded: It has ended.
    """
    members = task.members()
    descriptors = mappings = resident = 0
    for member in members:
        folder = Path(task.procfs.root) / str(member.pid)
        with contextlib.suppress(OSError):
            descriptors += sum(1 for _ in (folder / "fd").iterdir())
            mappings += (folder / "maps").read_bytes().count(b"\n")
            resident += int((folder / "statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return Work(
        processes=len(members),
        threads=sum(len(member.threads) for member in members),
        descriptors=descriptors,
        mappings=mappings,
        resident_bytes=resident,
    )


def promise_of(
    expected: Forecast | Plan | StrategyForecast | None, window_s: float
) -> Promise | None:
    """Return what was forecast of the step that is about to be made; None where nothing was.

    Args:
        expected: A forecast, a plan or one step of either.
        window_s: The window, where the step alone is given.
    """
    step = expected
    if isinstance(step, Forecast):
        window_s, step = step.window_s, step.full
    elif isinstance(step, Plan):
        window_s, step = step.window_s, step.step
    if step is None:
        return None
    return Promise(step.size_bytes, step.duration_s, step.fits, window_s, step.codec_bytes_s)


def promise_from(watch: Watch | None, store: Store, window_s: float) -> Promise | None:
    """Return what is forecast of a full dump of a watched task; None where nobody watches it.

    Args:
        watch: The watch.
        store: Where the dump goes.
        window_s: The window.
    """
    if watch is None:
        return None
    return promise_of(forecast(watch.profile(), store=store, window_s=window_s), window_s)


def promise_json(promise: Promise) -> dict[str, Any]:
    """Return a promise as manifests and events have it."""
    return {
        "size_bytes": attrs.asdict(promise.size_bytes),
        "duration_s": attrs.asdict(promise.duration_s),
        "fits": promise.fits,
        "window_s": promise.window_s,
    }


def note(
    store: Store,
    snapshot: Snapshot,
    *,
    work: Work,
    stopwatch: Stopwatch,
    codec: CodecFigures,
    before: Throughput,
    promise: Promise | None,
    wall_s: float,
) -> DumpRecord | None:
    """Add a dump to the history; never a reason for it to fail.

    Args:
        store: Where to.
        snapshot: What came of it.
        work: What it had to do; its ratio is that of the codec.
        stopwatch: When its phases began.
        codec: What the codec did.
        before: What the store had measured before it.
        promise: What had been forecast.
        wall_s: When it began, in seconds since the epoch.

    Returns:
        What was noted.
    """
    phases = stopwatch.phases()
    if phases is None:
        return None
    calibration = snapshot.key if snapshot.key.startswith(CALIBRATION) else None
    after = store.backend.throughput()
    busy_s = after.sending_s - before.sending_s
    went = after.sent_bytes - before.sent_bytes
    record = DumpRecord(
        time_s=wall_s,
        host=host_identity(),
        store=store_identity(store),
        program=_program(snapshot) if calibration is None else calibration,
        work=attrs.evolve(
            work,
            ratio=codec.stored_bytes / codec.raw_bytes if codec.raw_bytes else None,
            codec_bytes_s=None if promise is None else promise.codec_bytes_s,
        ),
        phases=phases,
        # What was copied ahead was stored before.
        stored_bytes=went if work.incremental and went > 0 else snapshot.stored_bytes,
        rates=Rates(
            codec_bytes_s=codec.raw_bytes / codec.busy_s if codec.busy_s > 0 else None,
            codec_threads=codec.threads,
            store_bytes_s=went / busy_s if busy_s > 0 and went > 0 else None,
        ),
        origin="dump" if calibration is None else "calibration",
        promise=promise,
    )
    with contextlib.suppress(SnaplibError, OSError):
        History().append(record)
    return record


def _program(snapshot: Snapshot) -> str:
    # Not the task itself: it has ended, and its parent may have heard of it.
    command = snapshot.task.get("command")
    return Path(command[0]).name if command else "?"
