"""The journal of runs, as events tell it."""

from __future__ import annotations

from pathlib import Path

import pytest

from snaplib.event import Event
from snaplib.store import RunRecord, Store
from snaplib.supervise.recorder import Recorder


class Clock:
    """A clock that only the test moves."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def run(store: Store, *events: tuple[str, float, dict[str, object]]) -> RunRecord | None:
    clock = Clock()
    recorder = Recorder(store, "k", ("bwa", "mem"), clock)
    for name, seconds, details in events:
        clock.now_s += seconds
        recorder(Event(name, 0.0, "k", details))
    if recorder._putting is not None:
        recorder._putting.join()
    runs = store.journal("k").runs()
    return runs[-1] if runs else None


def test_a_run_that_is_saved(store: Store) -> None:
    record = run(
        store,
        ("restored", 0, {"snapshot": "s1", "restore_s": 1.5}),
        ("copied", 10, {"copied_bytes": 100, "copy_s": 2.0}),
        ("copied", 10, {"copied_bytes": 50, "copy_s": 1.0}),
        ("notice", 3, {"window_s": 30.0, "source": "gcp"}),
        ("dump_failed", 0, {"reason": "no"}),
        ("saved", 2, {"snapshot": "s2", "dump_s": 1.0, "frozen_s": 0.5, "memory_bytes": 1 << 20}),
    )
    assert record is not None
    assert (record.how, record.snapshot) == ("restored", "s1")
    assert (record.outcome, record.saved_as, record.source) == ("saved", "s2", "gcp")
    assert record.alive_s == 25.0
    assert record.command == ("bwa", "mem")
    assert record.figures == {
        "restore_s": 1.5,
        "copies": 2.0,
        "copied_bytes": 150.0,
        "copy_s": 3.0,
        "window_s": 30.0,
        "dump_failures": 1.0,
        "dump_s": 1.0,
        "frozen_s": 0.5,
        "memory_bytes": float(1 << 20),
    }


def test_a_run_that_is_cut_off_has_no_end(store: Store) -> None:
    record = run(store, ("started", 0, {"pid": 7}), ("copying", 5, {}))
    assert record is not None
    assert (record.how, record.outcome, record.ended_at) == ("started", None, None)


def test_a_task_that_was_killed_has_not_ended(store: Store) -> None:
    killed = {"exit_code": None, "signal": 9, "snapshot": "s3"}
    record = run(store, ("started", 0, {"pid": 7}), ("killed", 5, killed))
    assert record is not None
    assert (record.outcome, record.signal, record.saved_as) == ("killed", 9, None)
    assert store.journal("k").attempts() == 1


def test_what_never_began_is_not_recorded(store: Store) -> None:
    assert run(store, ("not_started", 0, {}), ("failed", 0, {"exit_code": 177})) is None


def test_attempts_are_counted_since_the_task_last_ended(store: Store) -> None:
    journal = store.journal("k")
    assert journal.attempts() == 0
    run(store, ("started", 0, {}), ("saved", 5, {"snapshot": "s1"}))
    run(store, ("restored", 0, {"snapshot": "s1"}))
    run(store, ("adopted", 0, {}))
    assert journal.attempts() == 2, "taking a running task over is no attempt"
    run(store, ("restored", 0, {}), ("ended", 5, {"exit_code": 0, "signal": None}))
    assert journal.attempts() == 0
    assert store.journal("other").attempts() == 0


def test_a_journal_that_cannot_be_written_costs_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from snaplib.errors import StoreReadOnly  # noqa: PLC0415

    def refuse(_name: str, _data: bytes) -> None:
        raise StoreReadOnly("no")

    monkeypatch.setattr(store.backend, "put_new", refuse)
    assert run(store, ("started", 0, {}), ("ended", 1, {"exit_code": 0, "signal": None})) is None
