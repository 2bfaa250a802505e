"""The results file of guests, ``build/guests/results.json``: what each kernel has, and how its tests went."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import attrs

from tests.guests.image import KERNELS, ROOT

#: Where results are, beside the checkout's other leavings: a folder a kernel, and one file of all.
RESULTS = ROOT / "build/guests"


@attrs.frozen
class Verdict:
    """How the tests of one file went in one guest.

    Attributes:
        passed: How many passed.
        failed: The names of those that did not.
        skipped: How many were skipped.
        why: The reasons for that.
    """

    passed: int
    failed: tuple[str, ...]
    skipped: int
    why: tuple[str, ...]


def write_results(folder: Path = RESULTS) -> Path:
    """Write the file out of what guests have left, also those of earlier runs.

    Args:
        folder: Of the results.
    """
    kernels: dict[str, Any] = {}
    for kernel in KERNELS:
        if (folder / kernel / "doctor.json").exists():
            tests = {path: attrs.asdict(one) for path, one in verdicts(folder / kernel).items()}
            doctor = json.loads((folder / kernel / "doctor.json").read_text())
            kernels[kernel] = {"doctor": doctor, "tests": tests}
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


def verdicts(folder: Path) -> dict[str, Verdict]:
    """Return how the tests of each file went, by the path of the file.

    Args:
        folder: With the reports of one kernel.
    """
    counts: dict[str, list[ET.Element]] = {}
    for report in sorted(folder.glob("*.xml")):
        for case in ET.parse(report).iter("testcase"):
            counts.setdefault(case.get("classname", "").replace(".", "/") + ".py", []).append(case)
    found = {}
    for path, cases in counts.items():
        skipped = [one for case in cases if (one := case.find("skipped")) is not None]
        bad = [
            case.get("name", "")
            for case in cases
            if case.find("failure") is not None or case.find("error") is not None
        ]
        found[path] = Verdict(
            passed=len(cases) - len(skipped) - len(bad),
            failed=tuple(bad),
            skipped=len(skipped),
            why=tuple(sorted({one.get("message", "") for one in skipped})),
        )
    return found
