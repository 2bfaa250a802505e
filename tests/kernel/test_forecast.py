"""Forecasts of real dumps, and what is noted of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import snaplib
from snaplib.checkpoint.calibration import Subject, calibrate
from snaplib.checkpoint.compressibility import sample_compression
from snaplib.history import History, models_for
from tests.benchmarks.harness import memory_hog

pytestmark = pytest.mark.require("all")

_MIB = 1 << 20


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> History:
    monkeypatch.setenv("SNAPLIB_STATE_DIR", str(tmp_path / "state"))
    return History()


@pytest.fixture
def hog() -> Iterator[int]:
    with memory_hog(48 * _MIB) as pid:
        yield pid


def test_a_forecast_is_kept_beside_what_came_of_it(
    history: History, store: snaplib.Store, hog: int
) -> None:
    task = snaplib.Task.attach(hog)
    with snaplib.Watch(task, arm="none") as watch:
        sample = sample_compression(task)
        forecast = snaplib.forecast(watch.profile(), store=store, window_s=60, sample=sample)
        plan = snaplib.plan(forecast)
        snapshot = snaplib.dump(task, store, plan=plan, watch=watch, leave_running=True)

    assert plan.strategy == "full"
    size = forecast.best.size_bytes
    assert size.median == pytest.approx(snapshot.raw_bytes, rel=0.02)
    (record,) = history.records()
    assert record.work.sent_bytes == snapshot.raw_bytes
    assert record.work.processes == 1
    assert record.work.mappings > 20
    assert record.phases.total_s > 0
    assert record.promise is not None
    assert record.promise.size_bytes == size
    assert sample is not None
    assert record.work.codec_bytes_s == sample.codec_bytes_s
    assert record.promise.duration_s == forecast.best.duration_s
    assert snapshot.extra["forecast"]["window_s"] == 60
    assert snapshot.timings["frozen_s"] <= record.phases.total_s * 1.01


def test_a_dump_without_a_forecast_is_noted_too(
    history: History, store: snaplib.Store, hog: int
) -> None:
    snapshot = snaplib.dump(snaplib.Task.attach(hog), store, leave_running=True)

    (record,) = history.records()
    assert record.promise is None
    assert "forecast" not in snapshot.extra


def test_a_history_that_cannot_be_written_is_no_reason_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: snaplib.Store, hog: int
) -> None:
    (tmp_path / "state").write_text("a file")
    monkeypatch.setenv("SNAPLIB_STATE_DIR", str(tmp_path / "state"))

    with snaplib.Watch(snaplib.Task.attach(hog), arm="none") as watch:
        snapshot = snaplib.dump(snaplib.Task.attach(hog), store, watch=watch, leave_running=True)

    assert store.get(snapshot.id).extra["forecast"]["size_bytes"]["median"] > 48 * _MIB


def test_a_sample_tells_how_well_memory_compresses(hog: int) -> None:
    """Half of the task's memory is text, half is random; nothing is touched that was not there."""
    before = private_pages(hog)
    sample = sample_compression(snaplib.Task.attach(hog))

    assert sample is not None
    assert 0.4 < sample.ratio < 0.6
    assert sample.codec_bytes_s is not None
    assert sample.codec_bytes_s > 1e6
    assert private_pages(hog) == before


def private_pages(pid: int) -> int:
    """Resident pages that are the process's own; those of its program's files come and go."""
    _, resident, shared, *_ = map(int, Path(f"/proc/{pid}/statm").read_text().split())
    return resident - shared


def test_a_calibration_is_what_forecasts_start_from(history: History, store: snaplib.Store) -> None:
    subjects = (
        Subject("plain", 24 * _MIB),
        Subject("many", 8 * _MIB, threads=5, descriptors=50, processes=3),
    )
    measured = calibrate(store, budget_s=600, subjects=subjects)

    assert [record.program for record in measured.records] == [
        "snaplib-calibration-plain",
        "snaplib-calibration-many",
    ]
    assert all(record.work.codec_bytes_s for record in measured.records)
    many = measured.records[1].work
    assert (many.processes, many.threads) == (3, 7)
    assert many.descriptors > 150
    assert not measured.cut_short
    assert store.ids() == []
    models = models_for(store=store)
    assert (models.count, models.calibrated) == (2, 2)
    assert not any("no dump was ever made" in note for note in models.notes)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "snaplib", *arguments],
        text=True,
        capture_output=True,
        check=False,
        timeout=100,
    )


def test_the_commands_tell_what_they_expect(
    history: History, store: snaplib.Store, tmp_path: Path, hog: int
) -> None:
    url = str(tmp_path / "store")
    told = command("forecast", str(hog), "--store", url, "--watch", "1", "--arm", "all", "--json")
    assert told.returncode == 0, told.stderr
    forecast = json.loads(told.stdout)
    best = forecast["strategies"][forecast["best"]]
    assert best["name"] == "full"
    assert best["size_bytes"]["median"] == pytest.approx(48 * _MIB, rel=0.2)
    assert forecast["plan"]["strategy"] == "full"
    assert forecast["plan"]["reasons"]

    dumped = command("dump", str(hog), "--store", url, "--leave-running", "--json")
    assert dumped.returncode == 0, dumped.stderr
    result = json.loads(dumped.stdout)
    assert result["forecast"]["size_bytes"]["median"] == pytest.approx(
        result["memory_bytes"], rel=0.02
    )

    shown = command("show", result["id"], "--store", url)
    assert "forecast:" in shown.stdout
    assert "it took" in shown.stdout
    assert len(history.records()) == 1
    del store


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("forecast", "4194300"), 2, "no process"),
        (("replay", "/nonexistent"), 2, "no trace"),
        (("replay", __file__), 2, "is not a trace"),
        (("calibrate", "--budget", "0"), 2, "--budget: '0' is not a number of seconds"),
    ],
)
def test_bad_input_is_told_in_a_line(
    arguments: tuple[str, ...], status: int, says: str, tmp_path: Path
) -> None:
    done = command(*arguments, "--store", str(tmp_path / "store"))

    assert done.returncode == status
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
