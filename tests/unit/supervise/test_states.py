"""The states of a task's life: which may follow which, and what is told of it."""

from __future__ import annotations

import pytest

from snaplib.event import Event
from snaplib.supervise import MOVES, State
from snaplib.supervise.states import StateMachine


def machine() -> tuple[StateMachine, list[Event]]:
    told: list[Event] = []
    return StateMachine("key", told.append, clock=lambda: 23.0), told


def test_each_change_is_an_event_that_tells_the_new_state() -> None:
    life, told = machine()
    life.move(State.RUNNING, "started", pid=7)
    life.move(State.NOTICED, "notice", window_s=30.0)
    life.tell("window_moved", window_s=20.0)

    assert [(event.name, event.state) for event in told] == [
        ("started", "running"),
        ("notice", "noticed"),
        ("window_moved", "noticed"),
    ]
    assert told[0].to_json() == {
        "event": "started",
        "time_s": 23.0,
        "key": "key",
        "state": "running",
        "pid": 7,
    }


def test_what_cannot_follow_is_refused_and_not_told() -> None:
    life, told = machine()
    with pytest.raises(RuntimeError, match="starting cannot become dumping"):
        life.move(State.DUMPING, "dumping")

    assert life.state is State.STARTING
    assert told == []


def test_every_state_can_be_reached_and_every_life_can_end() -> None:
    reached = {State.STARTING}
    while more := {after for state in reached for after in MOVES[state]} - reached:
        reached |= more
    assert reached == set(State)
    final = {state for state in State if not MOVES[state]}
    assert final == {State.SAVED, State.DONE, State.FAILED}
    assert all(MOVES[state] & (final | {State.RUNNING}) for state in set(State) - final)
