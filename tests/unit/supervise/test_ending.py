"""What is told and tidied up when a task has ended."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from snaplib.errors import StoreError, StoreFull
from snaplib.event import Event
from snaplib.session import ExitStatus
from snaplib.store import Store
from snaplib.supervise import State
from snaplib.supervise.ending import finish
from snaplib.supervise.states import StateMachine


def end(store: Any, status: ExitStatus) -> tuple[int, list[Event]]:
    """Return what a run ends with, and what it tells."""
    told: list[Event] = []
    machine = StateMachine("k", told.append)
    machine.state = State.RUNNING
    settings = SimpleNamespace(store=store, key="k", keep_snapshots=False, exit_saved=75)
    code = finish(settings, machine, SimpleNamespace(acknowledge=lambda: None), status)  # type: ignore[arg-type]
    assert machine.state is State.DONE
    return code, told


def test_the_end_is_noted(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    code, told = end(store, ExitStatus(exit_code=3))
    assert code == 3
    assert [event.name for event in told] == ["ended"]
    noted = store.ended("k")
    assert noted is not None
    assert noted.exit_code == 3


@pytest.mark.parametrize("event", ["end_not_noted", "not_removed"])
def test_a_store_that_fails_does_not_change_the_status(event: str) -> None:
    """The work is done: whoever reads the status must not be told otherwise."""

    def fail(*_: object) -> None:
        raise StoreFull("no room")

    def mark(*_: object) -> None:
        if event == "end_not_noted":
            fail()

    store = SimpleNamespace(mark_ended=mark, snapshots=fail)
    code, told = end(store, ExitStatus(exit_code=0))
    assert code == 0
    assert [one.name for one in told] == ["ended", event]
    assert "no room" in told[1].details["reason"]


def test_a_snapshot_that_somebody_else_removes(tmp_path: Path) -> None:
    """Pruning at the same moment is no trouble."""
    store = Store.open(tmp_path / "store")
    gone = SimpleNamespace(
        mark_ended=store.mark_ended,
        snapshots=lambda _key: [SimpleNamespace(id="20200101T000000.000000-000000")],
        remove=store.remove,
    )
    code, told = end(gone, ExitStatus(exit_code=0))
    assert code == 0
    assert [event.name for event in told] == ["ended"]
    with pytest.raises(StoreError):
        store.remove("20200101T000000.000000-000000")
