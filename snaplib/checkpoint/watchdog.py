"""The deadline of a step that stops a task: when it passes, everything CRIU waits for is taken away.

CRIU's own ``--timeout`` covers only freezing.  A page server that hangs, or a client that does not answer a
notification, would leave the task frozen for ever.  CRIU itself is never killed: while it injects its parasite that
would kill the task.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Self

from snaplib.checkpoint.deadline import Deadline

__all__ = ["Watchdog"]

#: Between one remedy and the next, harsher one.
_STEP_S = 2.0


class Watchdog:
    """Runs remedies one after the other once a deadline has passed, unless it is left before.

    Args:
        deadline: When; it may be moved while the clock runs.
        remedies: What to do, gentlest first; each must return at once.
    """

    def __init__(self, deadline: Deadline, remedies: Sequence[Callable[[], None]]) -> None:
        self._deadline = deadline
        self._remedies = tuple(remedies)
        self._left = threading.Event()
        self._expired = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="snaplib-watchdog", daemon=True)

    @property
    def expired(self) -> bool:
        """Whether the deadline has passed."""
        return self._expired.is_set()

    def __enter__(self) -> Self:
        """Start the clock."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the clock."""
        self._left.set()
        self._deadline.wake()
        self._thread.join()

    def _watch(self) -> None:
        if not self._deadline.wait(self._left.is_set):
            return
        self._expired.set()
        for remedy in self._remedies:
            remedy()
            if self._left.wait(_STEP_S):
                return
