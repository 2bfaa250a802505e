"""What is done ahead while a task runs: copies as its saver wants them, and whole snapshots now and then.

One thing at a time, stopped when there is notice.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from snaplib.checkpoint import Deadline
from snaplib.errors import SnaplibError, StoreError, TaskEnded
from snaplib.store import Snapshot, Store
from snaplib.supervise.job import Job
from snaplib.supervise.saver import Saver
from snaplib.supervise.states import State, StateMachine

__all__ = ["Copying"]

#: A snapshot ahead that takes longer than this is given up: the task stands still for it.
_SNAPSHOT_S = 120.0


class Copying:
    """One saver's copies and snapshots ahead.

    Args:
        saver: Whose.
        store: Where snapshots are: one that a later one has replaced is removed.
        machine: Is ``running`` before and after, ``copying`` meanwhile.
        done: Called with the `Job` of a copy once it is finished, in its thread.
        snapshot_every_s: Seconds between two snapshots; none are made by default.
    """

    def __init__(
        self,
        saver: Saver,
        store: Store,
        machine: StateMachine,
        done: Callable[[Job], None],
        *,
        snapshot_every_s: float | None = None,
    ) -> None:
        self._saver = saver
        self._store = store
        self._machine = machine
        self._done = done
        self._every_s = snapshot_every_s
        self._last_s = time.monotonic()
        self._last: Snapshot | None = None
        self._stop = threading.Event()
        self._deadline: Deadline | None = None
        self._job: Job | None = None
        self._began_s = 0.0

    @property
    def active(self) -> bool:
        """Whether something is under way."""
        return self._job is not None

    @property
    def stopping(self) -> bool:
        """Whether something is, and has been told to stop."""
        return self.active and self._stop.is_set()

    def next_s(self) -> float | None:
        """Return in how many seconds something is due; None: not before something has happened."""
        dues = [self._saver.next_copy_s(), self._next_snapshot_s()]
        return min((one for one in dues if one is not None), default=None)

    def _next_snapshot_s(self) -> float | None:
        if self._every_s is None:
            return None
        return self._last_s + self._every_s - time.monotonic()

    def begin_if_due(self) -> None:
        """Begin what it is time for, if anything."""
        snapshot_s = self._next_snapshot_s()
        copy_s = self._saver.next_copy_s()
        if snapshot_s is not None and snapshot_s <= 0:
            deadline = self._deadline = Deadline(_SNAPSHOT_S)
            self._begin("snapshot", lambda _stop: self._saver.snapshot(deadline))
        elif copy_s is not None and copy_s <= 0:
            self._deadline = None
            self._begin("copy", self._saver.copy)

    def _begin(self, what: str, work: Callable[[threading.Event], Any]) -> None:
        self._stop = stop = threading.Event()
        self._began_s = time.monotonic()
        self._machine.move(State.COPYING, "copying", what=what)
        self._job = Job(what, lambda: work(stop), self._done)

    def finished(self, job: Job) -> None:
        """Hear that something is finished, and tell what it did."""
        if job is not self._job:
            return
        self._job = None
        now_s = time.monotonic()
        copy_s = now_s - self._began_s
        if job.name == "snapshot":
            self._last_s = now_s
        try:
            result = job.result()
        except TaskEnded:
            # Its end is about to be told.
            return
        except Exception as error:  # noqa: BLE001 - the task can be saved without it, whatever went wrong
            reason = str(error) if isinstance(error, SnaplibError) else repr(error)
            self._tell(f"{job.name}_failed", reason=reason, copy_s=copy_s)
            return
        if isinstance(result, Snapshot):
            self._replace(result)
            self._tell(
                "snapshot",
                snapshot=result.id,
                stored_bytes=result.stored_bytes,
                frozen_s=result.timings["frozen_s"],
                copy_s=copy_s,
            )
        else:
            self._tell("copied", **result, copy_s=copy_s)

    def _replace(self, snapshot: Snapshot) -> None:
        """Remove the snapshot before; if that fails it is one too many, which costs only room."""
        if self._last is not None:
            with contextlib.suppress(StoreError):
                self._store.remove(self._last.id)
        self._last = snapshot

    def stop(self) -> None:
        """Have what is under way stop; `finished` is called once it has."""
        self._stop.set()
        if self._deadline is not None:
            self._deadline.call_off()

    def join(self) -> None:
        """Wait for the end of what is under way."""
        if self._job is not None:
            self._job.join()

    def _tell(self, event: str, **details: Any) -> None:
        # A notice may have come meanwhile: then its state counts.
        if self._machine.state is State.COPYING:
            self._machine.move(State.RUNNING, event, **details)
        else:
            self._machine.tell(event, **details)
