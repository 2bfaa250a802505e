"""What guests have left becomes one file, and that a page of the manual."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.guests.matrix import write_matrix
from tests.guests.results import note_move, write_results

REPORT = """<testsuites><testsuite>
<testcase classname="tests.guests.inside.test_chains" name="a"/>
<testcase classname="tests.guests.inside.test_chains" name="b"><skipped message="lacks it"/></testcase>
<testcase classname="tests.kernel.test_freezer" name="c">{c}</testcase>
</testsuite></testsuites>"""


def leave(folder: Path, kernel: str, release: str, *, write_protect: bool, c: str = "") -> None:
    """Leave what a guest leaves."""
    (folder / kernel).mkdir(parents=True)
    told = {
        "kernel": f"{release}-cloud-amd64",
        "criu": {"version": "4.2"},
        "tracking": "write-protect" if write_protect else "soft-dirty",
        "bpf": "full",
        "features": {"write_protect": {"ok": write_protect}, "pidfd": {"ok": True}},
    }
    (folder / kernel / "doctor.json").write_text(json.dumps(told))
    (folder / kernel / "tests.xml").write_text(REPORT.format(c=c))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """The results of two kernels and of a move."""
    folder = tmp_path / "guests"
    leave(folder, "6.1", "6.1.0-1", write_protect=False, c="<failure/>")
    leave(folder, "newest", "7.2.1", write_protect=True)
    note_move("cut", ("newest", "6.1"), moved=True, duration_s=61.23, folder=folder)
    return write_results(folder)


def test_one_file_has_all(results: Path) -> None:
    found = json.loads(results.read_text())
    assert list(found["kernels"]) == ["6.1", "newest"]
    chains = found["kernels"]["6.1"]["tests"]["tests/guests/inside/test_chains.py"]
    assert chains == {"passed": 1, "failed": [], "skipped": 1, "why": ["lacks it"]}
    freezer = found["kernels"]["6.1"]["tests"]["tests/kernel/test_freezer.py"]
    assert freezer["failed"] == ["c"]
    assert found["moves"] == [
        {"way": "cut", "source": "newest", "target": "6.1", "moved": True, "duration_s": 61.2}
    ]


def test_the_page_says_what_failed_and_what_does_not_apply(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "support.md"
    assert write_matrix(page, results) == 0
    lines = page.read_text().splitlines()
    assert "| feature | 6.1.0-1 | 7.2.1 |" in lines
    assert "| write protect | no | yes |" in lines
    assert "| freezing | **1 failed**, 0 passed | 1 |" in lines
    assert any(line.endswith("| 1, 1 do not apply | 1, 1 do not apply |") for line in lines)
    assert "| cut off while it saves | 7.2.1 | 6.1.0-1 | passed |" in lines


def test_without_results_no_page_is_written(tmp_path: Path) -> None:
    page = tmp_path / "support.md"
    assert write_matrix(page, tmp_path / "results.json") == 1
    assert not page.exists()
