"""The states of a task's life, which follow which, and the events that tell of each change."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Mapping
from typing import Any

from snaplib.event import Event

__all__ = ["MOVES", "State", "StateMachine"]


class State(enum.StrEnum):
    """Where a task's life is, as its supervisor sees it."""

    #: Nothing runs yet; what there is for the key is being found out.
    STARTING = "starting"
    #: A snapshot is being restored.
    RESUMING = "resuming"
    #: The task runs, and nothing else happens.
    RUNNING = "running"
    #: The task runs, and memory is being copied ahead.
    COPYING = "copying"
    #: A window has begun: the task runs, and is about to be dumped, or waits for another try.
    NOTICED = "noticed"
    #: It is being dumped.
    DUMPING = "dumping"
    #: What there is of it is in the store.
    SAVED = "saved"
    #: It has ended.
    DONE = "done"
    #: It could not be started, resumed or saved, and if it ran, it runs on; or it was killed.
    FAILED = "failed"


#: Which states may follow a state.
MOVES: Mapping[State, frozenset[State]] = {
    State.STARTING: frozenset(
        {State.RESUMING, State.RUNNING, State.SAVED, State.DONE, State.FAILED}
    ),
    State.RESUMING: frozenset({State.RUNNING, State.STARTING, State.FAILED}),
    State.RUNNING: frozenset({State.COPYING, State.NOTICED, State.DONE, State.FAILED}),
    State.COPYING: frozenset({State.RUNNING, State.NOTICED, State.DONE, State.FAILED}),
    State.NOTICED: frozenset({State.DUMPING, State.RUNNING, State.DONE, State.FAILED}),
    State.DUMPING: frozenset({State.SAVED, State.NOTICED, State.RUNNING, State.DONE, State.FAILED}),
    State.SAVED: frozenset(),
    State.DONE: frozenset(),
    State.FAILED: frozenset(),
}


class StateMachine:
    """The state a life is in; every change of it is told as an event.

    Args:
        key: The supervisor's key, which goes with each event.
        on_event: Called with each `Event`, in the thread that made the change.
        clock: Tells the time of day in seconds since the epoch.
    """

    def __init__(
        self,
        key: str,
        on_event: Callable[[Event], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._key = key
        self._on_event = on_event
        self._clock = clock
        self.state = State.STARTING

    def move(self, state: State, event: str, **details: Any) -> None:
        """Go to another state, and tell so.

        Args:
            state: Where to.
            event: The event's name.
            **details: Its figures.

        Raises:
            RuntimeError: This state cannot follow the present one.
        """
        if state not in MOVES[self.state]:
            raise RuntimeError(f"a task that is {self.state} cannot become {state} ({event})")
        self.state = state
        self.tell(event, **details)

    def tell(self, event: str, **details: Any) -> None:
        """Tell of something that happened without a change of state."""
        self._on_event(Event(event, self._clock(), self._key, details, self.state.value))
