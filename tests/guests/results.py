"""The results of guests, ``build/guests/results.json``: what each kernel has, and how its tests went."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from tests.guests.image import KERNELS, ROOT

#: Where results are, beside the checkout's other leavings: a folder a kernel, and one file of all.
RESULTS = ROOT / "build/guests"

#: Lines of a guest's output that begin with it are for `told_in`.
MARK = "\x1e"

_NOT_RUN = "not run"


@attrs.frozen
class Record:
    """How one test went in one guest.

    Attributes:
        outcome: ``passed``, ``failed``, ``skipped``, or ``not run``: the guest ended before.
        why: Why it was skipped, or failed.
        duration_s: How long it took.
    """

    outcome: str
    why: str = ""
    duration_s: float = 0.0


@attrs.frozen
class Verdict:
    """How the tests of one file went in one guest.

    Attributes:
        passed: How many passed.
        failed: The names of those that did not.
        skipped: How many were skipped.
        why: The reasons for that.
        not_run: The names of those that the guest did not come to.
    """

    passed: int
    failed: tuple[str, ...]
    skipped: int
    why: tuple[str, ...]
    not_run: tuple[str, ...]


def told_in(output: str) -> dict[str, Record]:
    """Return how the tests went, by their names, out of what `tests.guests.inside.telling` has printed.

    Args:
        output: Of a guest, which may have ended anywhere.
    """
    found: dict[str, Record] = {}
    for told in _told(output):
        for name in told.get("collected", ()):
            found[name] = Record(_NOT_RUN)
        if "test" in told:
            name = told.pop("test")
            # One that passed may fail in what comes after it.
            if found.get(name, Record("")).outcome != "failed":
                found[name] = Record(**told)
    return found


def _told(output: str) -> Iterable[dict[str, Any]]:
    for line in output.split("\n")[:-1]:
        if line.startswith(MARK):
            yield json.loads(line.removeprefix(MARK))


def readable(line: str) -> str:
    """Return a line of a guest's output as it is shown: what is for `told_in` in words.

    Args:
        line: Without its end.
    """
    if not line.startswith(MARK):
        return line
    told = json.loads(line.removeprefix(MARK))
    if "test" in told:
        why = f"\n{told['why']}" if told["outcome"] == "failed" else ""
        return f"{told['outcome']} {told['duration_s']:6.1f} s  {told['test']}{why}"
    return f"{len(told['collected'])} tests"


def note_tests(kernel: str, told: Mapping[str, Record], folder: Path = RESULTS) -> None:
    """Keep how tests went in a guest, over what was known of them before.

    Args:
        kernel: Of the guest.
        told: By the names of the tests.
        folder: Of the results.
    """
    file = folder / kernel / "tests.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    known = _records(folder, kernel)
    for name, one in told.items():
        if one.outcome != _NOT_RUN or name not in known:
            known[name] = one
    content = {name: attrs.asdict(one) for name, one in sorted(known.items())}
    file.write_text(json.dumps(content, indent=1) + "\n")


def _records(folder: Path, kernel: str) -> dict[str, Record]:
    file = folder / kernel / "tests.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    return {name: Record(**one) for name, one in known.items()}


def write_results(folder: Path = RESULTS) -> Path:
    """Write the file out of what guests have left, also those of earlier runs.

    Args:
        folder: Of the results.
    """
    kernels: dict[str, Any] = {}
    for kernel in KERNELS:
        doctor = folder / kernel / "doctor.json"
        tests = verdicts(_records(folder, kernel))
        kernels[kernel] = {
            "doctor": json.loads(doctor.read_text()) if doctor.exists() else None,
            "tests": {path: attrs.asdict(one) for path, one in tests.items()},
        }
    moves = [json.loads(one.read_text()) for one in sorted(folder.glob("move-*.json"))]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "results.json"
    file.write_text(json.dumps({"kernels": kernels, "moves": moves}, indent=1) + "\n")
    return file


def note_move(
    way: str, kernels: tuple[str, str], *, moved: bool, duration_s: float, folder: Path = RESULTS
) -> None:
    """Keep how a task's move between two guests went.

    Args:
        way: Of the move.
        kernels: Of the guest it comes from, and of the one it goes to.
        moved: Whether all of it came through.
        duration_s: What the guests took.
        folder: Of the results.
    """
    folder.mkdir(parents=True, exist_ok=True)
    told = {
        "way": way,
        "source": kernels[0],
        "target": kernels[1],
        "moved": moved,
        "duration_s": round(duration_s, 1),
    }
    (folder / f"move-{way}.json").write_text(json.dumps(told) + "\n")


def verdicts(records: Mapping[str, Record]) -> dict[str, Verdict]:
    """Return how the tests of each file went, by the path of the file.

    Args:
        records: How each test went, by its name.
    """
    files: dict[str, dict[str, Record]] = {}
    for name, one in records.items():
        path, _, test = name.partition("::")
        files.setdefault(path, {})[test] = one

    def of(tests: Mapping[str, Record], outcome: str) -> tuple[str, ...]:
        return tuple(test for test, one in tests.items() if one.outcome == outcome)

    return {
        path: Verdict(
            passed=len(of(tests, "passed")),
            failed=of(tests, "failed"),
            skipped=len(of(tests, "skipped")),
            why=tuple(sorted({one.why for one in tests.values() if one.outcome == "skipped"})),
            not_run=of(tests, _NOT_RUN),
        )
        for path, tests in files.items()
    }
