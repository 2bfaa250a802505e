"""Copying ahead, as its saver wants it: begun when it is due, stopped when there is notice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from snaplib.errors import SnaplibError, TaskEnded
from snaplib.supervise.job import Job
from snaplib.supervise.saver import Saver
from snaplib.supervise.states import State, StateMachine

__all__ = ["Copying"]


class Copying:
    """One saver's copies, one at a time.

    Args:
        saver: Whose.
        machine: Is ``running`` before and after, ``copying`` meanwhile.
        done: Called with the `Job` of a copy once it is finished, in its thread.
    """

    def __init__(self, saver: Saver, machine: StateMachine, done: Callable[[Job], None]) -> None:
        self._saver = saver
        self._machine = machine
        self._done = done
        self._stop = threading.Event()
        self._job: Job | None = None
        self._began_s = 0.0

    @property
    def active(self) -> bool:
        """Whether a copy is under way."""
        return self._job is not None

    @property
    def stopping(self) -> bool:
        """Whether one is, and has been told to stop."""
        return self.active and self._stop.is_set()

    def next_s(self) -> float | None:
        """Return in how many seconds the next copy is due; None: not before something has happened."""
        return self._saver.next_copy_s()

    def begin_if_due(self) -> None:
        """Begin a copy if it is time for one."""
        due_s = self._saver.next_copy_s()
        if due_s is None or due_s > 0:
            return
        self._stop = stop = threading.Event()
        self._began_s = time.monotonic()
        self._machine.move(State.COPYING, "copying")
        self._job = Job("copy", lambda: self._saver.copy(stop), self._done)

    def finished(self, job: Job) -> None:
        """Hear that a copy is finished, and tell what it did."""
        if job is not self._job:
            return
        self._job = None
        seconds = time.monotonic() - self._began_s
        try:
            figures: dict[str, Any] = dict(job.result())
        except TaskEnded:
            # Its end is about to be told.
            return
        except SnaplibError as error:
            self._tell("copy_failed", reason=str(error), copy_s=seconds)
        else:
            self._tell("copied", **figures, copy_s=seconds)

    def stop(self) -> None:
        """Have a copy that is under way stop; `finished` is called once it has."""
        self._stop.set()

    def join(self) -> None:
        """Wait for the end of a copy that is under way."""
        if self._job is not None:
            self._job.join()

    def _tell(self, event: str, **details: Any) -> None:
        # A notice may have come meanwhile: then its state counts.
        if self._machine.state is State.COPYING:
            self._machine.move(State.RUNNING, event, **details)
        else:
            self._machine.tell(event, **details)
