"""The file of dumps: small, ours, and never a reason to crash."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

import snaplib
from snaplib import history as history_module
from snaplib.errors import UsageError
from snaplib.history import History, host_identity, models_for, store_identity
from snaplib.testing.dumps import SimulatedHost, make_profile


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history.jsonl")


def test_what_was_noted_is_there(history: History) -> None:
    records = SimulatedHost().records(5)
    history.append(*records[:3])
    history.append(*records[3:])

    assert history.records() == records
    assert stat.S_IMODE(history.path.stat().st_mode) == 0o600


def test_without_a_file_there_is_nothing(history: History) -> None:
    assert history.records() == []
    assert models_for(history=history).count == 0


def test_lines_that_are_no_records_are_passed_over(history: History) -> None:
    records = SimulatedHost().records(2)
    history.append(records[0])
    with history.path.open("a") as file:
        file.write('nonsense\n[1]\n{"work": 3}\n{"time_s": NaN}\n')
    history.append(records[1])
    with history.path.open("a") as file:
        file.write('{"time_s": 17, "ho')

    assert history.records() == records


def test_many_may_note_at_once(history: History) -> None:
    records = SimulatedHost().records(40)
    threads = [
        threading.Thread(target=lambda part=records[at::4]: [history.append(one) for one in part])
        for at in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(history.records(), key=lambda one: one.time_s) == records


def test_it_stays_small(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "_MOST_BYTES", 20_000)
    records = SimulatedHost().records(100)
    for record in records:
        history.append(record)

    kept = history.records()
    assert 10 < len(kept) < 60
    assert kept == records[-len(kept) :]


def test_a_file_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "history.jsonl"
    folder.mkdir()

    with pytest.raises(UsageError, match="cannot be read"):
        History(folder).records()
    with pytest.raises(UsageError, match="cannot be written"):
        History(folder).append(*SimulatedHost().records(1))
    assert any("cannot be read" in note for note in models_for(history=History(folder)).notes)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(UsageError, match="cannot be written"):
        History(tmp_path / "link").append(*SimulatedHost().records(1))
    assert not (tmp_path / "elsewhere").exists()


def test_stores_of_one_file_system_are_one(tmp_path: Path) -> None:
    assert store_identity(str(tmp_path / "a")) == store_identity(f"file://{tmp_path}/b%20c")
    assert store_identity("s3://key:secret@bucket/prefix/x") == "s3://bucket"
    assert store_identity("/proc/self") != store_identity("/dev/shm/x")


def test_this_host_has_an_identity() -> None:
    assert host_identity(snaplib.Host.probe()) == host_identity()
    assert "GiB" in host_identity()


def test_the_public_forecast_needs_a_profile_only() -> None:
    forecast = snaplib.forecast(make_profile(2e8), window_s=60)
    plan = snaplib.plan(forecast)

    best = forecast.best
    assert best.size_bytes.low <= best.size_bytes.median <= best.size_bytes.high
    assert best.duration_s.low < best.duration_s.median < best.duration_s.high
    assert plan.strategy == "full"
    assert plan.next_copy_s is None
    assert all(isinstance(reason, str) for reason in plan.reasons)
