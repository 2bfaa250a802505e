"""What became of runs, from the records that a journal has of them."""

from __future__ import annotations

import attrs
import pytest

from snaplib.event import Event
from snaplib.report import prometheus_text, structlog_events, summarize
from snaplib.store import RunRecord


def record(number: int, how: str = "restored", outcome: str | None = "saved", **more) -> RunRecord:
    """Return a run that began some hours after midnight and lasted half an hour."""
    ended = {} if outcome is None else {"ended_at": "x", "alive_s": 1800.0}
    return RunRecord(
        id=f"{number:03d}",
        key=more.pop("key", "k"),
        began_at=f"2026-11-28T{number:02d}:00:00+00:00",
        how=how,
        outcome=outcome,
        **{**ended, **more},
    )


def total(*runs: RunRecord):
    return summarize(runs).total


def test_saved_twice_and_ended() -> None:
    one = total(record(1, "started"), record(2), record(3, outcome="ended", exit_code=0))
    assert (one.runs, one.interruptions, one.saved, one.resumed, one.ended) == (3, 2, 2, 2, 1)
    assert (one.kept_s, one.lost_s, one.ended_s) == (3600.0, 0.0, 1800.0)


def test_what_is_saved_and_not_resumed_yet_waits() -> None:
    one = total(record(1, "started"))
    assert (one.waiting, one.resumed, one.kept_s) == (1, 0, 1800.0)


def test_cut_off_is_lost_up_to_when_the_next_one_began() -> None:
    one = total(record(1, "started", None), record(3, "started", "ended"))
    assert (one.cut_off, one.interruptions, one.lost_s) == (1, 1, 7200.0)


def test_cut_off_after_a_snapshot_made_ahead_is_kept_up_to_that() -> None:
    ahead = "20261128T013000.000000-abcdef"
    one = total(record(1, "started", None), record(3, "restored", "ended", snapshot=ahead))
    assert (one.cut_off, one.kept_s, one.lost_s) == (1, 1800.0, 5400.0)


def test_a_task_that_was_killed_counts_like_one_that_was_cut_off() -> None:
    ahead = "20261128T011500.000000-abcdef"
    one = total(record(1, "started", "killed"), record(3, "restored", "ended", snapshot=ahead))
    assert (one.cut_off, one.kept_s, one.lost_s, one.ended) == (1, 900.0, 900.0, 1)


def test_the_last_run_without_an_end_may_go_on() -> None:
    one = total(record(1, "started"), record(2, outcome=None))
    assert (one.open, one.interruptions, one.lost_s) == (1, 1, 0.0)


def test_a_supervisor_that_is_killed_loses_nothing() -> None:
    """The task runs on, and is taken over: what it did before is kept with what it did after."""
    one = total(
        record(1, "started", None), record(2, "adopted", "saved"), record(3, outcome="ended")
    )
    assert (one.cut_off, one.saved, one.interruptions) == (0, 1, 1)
    assert (one.kept_s, one.lost_s) == (3600.0 + 1800.0, 0.0)


def test_a_snapshot_that_could_not_be_restored_kept_nothing() -> None:
    one = total(record(1, "started"), record(2, "started", "ended"))
    assert (one.saved, one.resumed, one.kept_s, one.lost_s) == (1, 0, 0.0, 1800.0)


def test_a_run_that_could_not_be_saved() -> None:
    failed = record(1, "started", "failed", figures={"dump_failures": 3})
    assert total(failed, record(2, "started", "ended")).lost_s == 1800.0
    assert total(failed, record(2, "adopted", "ended")).lost_s == 0.0
    assert total(failed).dump_failures == 3


def test_figures_are_added_up_and_forecasts_compared() -> None:
    figures = {"dump_s": 2.0, "frozen_s": 1.0, "stored_bytes": 100.0, "forecast_s": 2.5}
    one = total(
        record(1, "started", figures=figures),
        record(2, figures={**figures, "restore_s": 3.0, "forecast_s": 2.1}),
    )
    assert (one.dump_s, one.frozen_s, one.restore_s, one.stored_bytes) == (4.0, 2.0, 3.0, 200)
    assert one.forecasts == 2
    assert one.forecast_error == pytest.approx(0.15)


def test_keys_are_apart_and_can_be_chosen() -> None:
    runs = [record(1, "started", key="a"), record(1, "started", "ended", key="b")]
    report = summarize(runs)
    assert [one.key for one in report.keys] == ["a", "b"]
    assert report.total.runs == 2
    assert [one.key for one in summarize(runs, ["b"]).keys] == ["b"]
    assert attrs.asdict(summarize([]).total)["runs"] == 0


def test_prometheus_text_has_a_sample_for_each_key() -> None:
    text = prometheus_text(summarize([record(1, "started", key='with "quotes"')]))
    assert 'snaplib_runs_total{key="with \\"quotes\\"",outcome="saved"} 1\n' in text
    assert 'snaplib_compute_seconds_total{key="with \\"quotes\\"",fate="kept"} 1800\n' in text
    assert text.count("# TYPE") == text.count("# HELP") == 6
    assert text.endswith("\n")


def test_events_for_structlog(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys  # noqa: PLC0415
    from types import SimpleNamespace  # noqa: PLC0415

    logged: list[tuple[str, str, dict[str, object]]] = []
    logger = SimpleNamespace(
        info=lambda name, **more: logged.append(("info", name, more)),
        warning=lambda name, **more: logged.append(("warning", name, more)),
    )
    fake = SimpleNamespace(get_logger=lambda _name: logger)
    monkeypatch.setitem(sys.modules, "structlog", fake)
    log = structlog_events()
    log(Event("saved", 0.0, "k", {"snapshot": "s"}, "saved"))
    log(Event("dump_failed", 0.0, "k", {"reason": "no"}, "noticed"))
    assert logged == [
        ("info", "saved", {"snapshot": "s", "key": "k", "state": "saved"}),
        ("warning", "dump_failed", {"reason": "no", "key": "k", "state": "noticed"}),
    ]
