"""Looking ahead, while there is time to do something about it, for what a dump would fail at."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import attrs

from snaplib.checkpoint.preflight import preflight
from snaplib.errors import SnaplibError
from snaplib.task import Task

__all__ = ["Lookout"]

#: Soon after the start, and then now and then.
_FIRST_LOOK_S = 3.0
_LOOK_EVERY_S = 60.0


class Lookout:
    """Tells what a dump would fail at, or lose; each thing once.

    Args:
        task: What is looked at.
        tcp: What becomes of its connected TCP sockets.
        tell: Tells an event.
        clock: Tells the time in seconds, never backwards.
    """

    def __init__(
        self,
        task: Task,
        tcp: str,
        tell: Callable[..., None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._task = task
        self._tcp = tcp
        self._tell = tell
        self._clock = clock
        self._due_s = clock() + _FIRST_LOOK_S
        self._told: set[tuple[str, int]] = set()
        self._thread: threading.Thread | None = None

    def next_s(self) -> float:
        """Return in how many seconds the next look is due."""
        return self._due_s - self._clock()

    def look_if_due(self) -> None:
        """Look if it is time, in a thread of its own: a large task takes longer than a notice may wait."""
        if self.next_s() > 0:
            return
        self._due_s = self._clock() + _LOOK_EVERY_S
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._look, name="snaplib-lookout", daemon=True)
            self._thread.start()

    def _look(self) -> None:
        # What cannot be looked into now is found by the dump.
        with contextlib.suppress(SnaplibError):
            for one in preflight(self._task, tcp=self._tcp):
                if one.severity != "warning" and (one.code, one.pid) not in self._told:
                    self._told.add((one.code, one.pid))
                    self._tell("obstacle", **attrs.asdict(one))
