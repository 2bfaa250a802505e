"""A report on real runs."""

from __future__ import annotations

import json
import signal

import pytest

from tests.system.conftest import Bench


def test_saved_resumed_and_ended(bench: Bench) -> None:
    """One interruption, and what was done before it is kept."""
    command = ["run", "--key", "mine", "--", "sh", "-c", "while ! test -e go; do sleep 0.1; done"]
    process = bench.start(command)
    bench.wait_for_task()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75
    (bench.folder / "go").touch()
    assert bench.run(*command).returncode == 0

    metrics = bench.folder / "snaplib.prom"
    done = bench.run("report", "--json", "--price", "3600", "--prometheus", metrics)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["runs"], report["interruptions"], report["resumed"]) == (2, 1, 1)
    assert report["kept_s"] > 0
    assert report["kept_cost"] == pytest.approx(report["kept_s"])
    assert report["lost_s"] == 0
    assert report["dump_s"] >= report["frozen_s"] > 0
    assert report["stored_bytes"] > 0
    assert [one["key"] for one in report["keys"]] == ["mine"]
    assert 'snaplib_resumed_total{key="mine"} 1' in metrics.read_text()

    told = bench.run("report")
    assert "1 interruptions: 1 saved, 1 of them resumed" in told.stdout
