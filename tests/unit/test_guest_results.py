"""What guests have left becomes one file, and that a page of the manual."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.guests.matrix import write_matrix
from tests.guests.results import (
    MARK,
    note_move,
    note_tests,
    readable,
    told_in,
    verdicts,
    write_results,
)

CHAINS = "tests/guests/inside/test_chains.py"
FREEZER = "tests/kernel/test_freezer.py"


def output(*told: dict, end: str = "") -> str:
    """What a guest prints, and something of its own between."""
    lines = [f"{MARK}{json.dumps(one)}\n" for one in told]
    return "some warning\n".join(["", *lines]) + end


def outcome(test: str, outcome: str, why: str = "") -> dict:
    return {"test": test, "outcome": outcome, "why": why, "duration_s": 1.2}


def leave(folder: Path, kernel: str, release: str, *, write_protect: bool, c: str) -> None:
    """Leave what a guest leaves."""
    told = {
        "kernel": f"{release}-cloud-amd64",
        "criu": {"version": "4.2"},
        "tracking": "write-protect" if write_protect else "soft-dirty",
        "bpf": "full",
        "features": {"write_protect": {"ok": write_protect}, "pidfd": {"ok": True}},
    }
    names = [f"{CHAINS}::a", f"{CHAINS}::b[x::y]", f"{FREEZER}::c"]
    said = output(
        {"collected": names},
        outcome(names[0], "passed"),
        outcome(names[1], "skipped", "lacks it"),
        outcome(names[2], c),
    )
    note_tests(kernel, told_in(said), folder)
    (folder / kernel / "doctor.json").write_text(json.dumps(told))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """The results of two kernels and of a move."""
    folder = tmp_path / "guests"
    leave(folder, "6.1", "6.1.0-1", write_protect=False, c="failed")
    leave(folder, "newest", "7.2.1", write_protect=True, c="passed")
    note_move("cut", ("newest", "6.1"), moved=True, duration_s=61.23, folder=folder)
    return write_results(folder)


def test_what_a_guest_told_before_it_died_is_kept() -> None:
    names = [f"{FREEZER}::a", f"{FREEZER}::b", f"{FREEZER}::c"]
    said = output(
        {"collected": names},
        outcome(names[0], "passed"),
        outcome(names[1], "passed"),
        outcome(names[1], "failed"),
        end=MARK + '{"test": "tests/ker',
    )
    told = told_in(said)
    assert {name: one.outcome for name, one in told.items()} == {
        names[0]: "passed",
        names[1]: "failed",
        names[2]: "not run",
    }
    assert verdicts(told)[FREEZER].not_run == ("c",)


def test_a_later_run_changes_only_what_it_has_tried(tmp_path: Path) -> None:
    names = [f"{FREEZER}::a", f"{FREEZER}::b"]
    for said in (
        output({"collected": names}, outcome(names[0], "failed"), outcome(names[1], "passed")),
        output({"collected": names}, outcome(names[0], "passed")),
    ):
        note_tests("6.1", told_in(said), tmp_path)
    found = json.loads(write_results(tmp_path).read_text())
    freezer = found["kernels"]["6.1"]["tests"][FREEZER]
    assert (freezer["passed"], freezer["failed"], freezer["not_run"]) == (2, [], [])


def test_lines_are_shown_in_words() -> None:
    said = MARK + json.dumps(outcome(f"{FREEZER}::a", "passed"))
    assert readable(said) == f"passed    1.2 s  {FREEZER}::a"
    assert readable("anything else") == "anything else"


def test_one_file_has_all(results: Path) -> None:
    found = json.loads(results.read_text())
    assert list(found["kernels"]) == ["6.1", "6.12", "newest"]
    chains = found["kernels"]["6.1"]["tests"][CHAINS]
    counted = {"passed": 1, "failed": [], "skipped": 1, "why": ["lacks it"], "not_run": []}
    assert chains == counted
    assert found["kernels"]["6.1"]["tests"][FREEZER]["failed"] == ["c"]
    assert found["kernels"]["6.12"] == {"doctor": None, "tests": {}}
    assert found["moves"] == [
        {"way": "cut", "source": "newest", "target": "6.1", "moved": True, "duration_s": 61.2}
    ]


def test_the_page_says_what_failed_what_does_not_apply_and_what_was_not_run(
    results: Path, tmp_path: Path
) -> None:
    page = tmp_path / "support.md"
    assert write_matrix(page, results) == 0
    lines = page.read_text().splitlines()
    assert "| feature | 6.1.0-1 | 6.12 | 7.2.1 |" in lines
    assert "| write protect | no | not run | yes |" in lines
    assert any(line.endswith("| **1 failed**, 0 passed | not run | 1 passed |") for line in lines)
    applies = "1 passed, 1 do not apply"
    assert any(line.endswith(f"| {applies} | not run | {applies} |") for line in lines)
    assert any(line.endswith("| not run | not run | not run |") for line in lines)
    assert any(
        line.startswith("| soft-dirty") and line.endswith("| not run | - | - |") for line in lines
    )
    assert "| cut off while it saves | 7.2.1 | 6.1.0-1 | passed |" in lines
    assert "| saved on notice, restored lazily | 7.2.1 | 6.12 | not run |" in lines


def test_without_results_no_page_is_written(tmp_path: Path) -> None:
    page = tmp_path / "support.md"
    assert write_matrix(page, tmp_path / "results.json") == 1
    assert not page.exists()
