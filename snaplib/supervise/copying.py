"""What is done ahead while a task runs: copies as its saver wants them, and whole snapshots as was promised.

One thing at a time, stopped when there is notice.  A snapshot that is due stops a copy: the next goes on with what is
left of it.
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
from snaplib.supervise.promise import Promise
from snaplib.supervise.saver import Saver
from snaplib.supervise.states import State, StateMachine

__all__ = ["Copying"]


class Copying:
    """One saver's copies and snapshots ahead.

    Args:
        saver: Whose.
        store: Where snapshots are: one that a later one has replaced is removed.
        machine: Is ``running`` before and after, ``copying`` meanwhile.
        done: Called with the `Job` of a copy once it is finished, in its thread.
        promise: How much work is lost at most, and so when snapshots are made; none by default.
    """

    def __init__(
        self,
        saver: Saver,
        store: Store,
        machine: StateMachine,
        done: Callable[[Job], None],
        *,
        promise: Promise | None = None,
    ) -> None:
        self._saver = saver
        self._store = store
        self._machine = machine
        self._done = done
        self._promise = promise or Promise()
        self._last: Snapshot | None = None
        self._stop = threading.Event()
        self._deadline: Deadline | None = None
        self._job: Job | None = None
        self._removing: Job | None = None
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
        snapshot_s = self._promise.due_s()
        if self.active:
            return None if self._deadline is not None or self._stop.is_set() else snapshot_s
        dues = [self._saver.next_copy_s(), snapshot_s]
        return min((one for one in dues if one is not None), default=None)

    def begin_if_due(self) -> None:
        """Begin what it is time for, if anything; tell a promise that is new."""
        if self._promise.is_news():
            self._machine.tell("promise", lost_s=self._promise.most_s, by=self._promise.by)
        snapshot_s = self._promise.due_s()
        is_due = snapshot_s is not None and snapshot_s <= 0
        if self.active:
            if is_due and self._deadline is None:
                self._stop.set()
            return
        copy_s = self._saver.next_copy_s()
        if is_due:
            deadline = self._deadline = Deadline(self._promise.limit_s)
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
        copy_s = time.monotonic() - self._began_s
        try:
            result = job.result()
        except TaskEnded:
            # Its end is about to be told.
            return
        except Exception as error:  # noqa: BLE001 - the task can be saved without it, whatever went wrong
            reason = str(error) if isinstance(error, SnaplibError) else repr(error)
            details: dict[str, Any] = {"reason": reason, "copy_s": copy_s}
            if job.name == "snapshot":
                self._promise.missed(copy_s)
                details |= {"unsaved_s": self._promise.unsaved_s, "again_s": self._promise.due_s()}
            self._tell(f"{job.name}_failed", **details)
            return
        if isinstance(result, Snapshot):
            self._promise.kept(copy_s, result.timings["frozen_s"])
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
        """Have the snapshot before removed; if that fails it is one too many, which costs only room."""
        before, self._last = self._last, snapshot
        if before is None:
            return
        earlier = self._removing

        def remove() -> None:
            if earlier is not None:
                earlier.join()
            with contextlib.suppress(StoreError):
                self._store.remove(before.id)

        # A store may take its time, and a notice must not wait for it.
        self._removing = Job("remove", remove, lambda _job: None)

    def stop(self) -> None:
        """Have what is under way stop; `finished` is called once it has."""
        self._stop.set()
        if self._deadline is not None:
            self._deadline.call_off()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of what is under way.

        Args:
            timeout_s: How long to wait for each thing.

        Returns:
            Whether all has ended.
        """
        ended = [job.join(timeout_s) for job in (self._job, self._removing) if job is not None]
        return all(ended)

    def _tell(self, event: str, **details: Any) -> None:
        # A notice may have come meanwhile: then its state counts.
        if self._machine.state is State.COPYING:
            self._machine.move(State.RUNNING, event, **details)
        else:
            self._machine.tell(event, **details)
