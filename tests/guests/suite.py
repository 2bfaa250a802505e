"""What is tried in each guest, and what is kept of how it went: one folder of results a kernel.

A guest gets the snapshots that guests of other kernels have left: hence two rounds, for what an old kernel makes of a
new one's is as interesting as the other way round.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import attrs

from tests.guests.image import KERNELS, ROOT, Image
from tests.guests.machine import End, Job, Outcome
from tests.guests.running import run_job

#: Where results are, beside the checkout's other leavings.
RESULTS = ROOT / "build/guests"

#: Tests that every guest runs: those made for guests, and those of what a kernel decides.
PATHS = (
    "tests/guests/inside",
    "tests/kernel/test_doctor.py",
    "tests/kernel/test_dump_restore.py",
    "tests/kernel/test_freezer.py",
    "tests/kernel/test_shim.py",
    "tests/kernel/track",
    "tests/kernel/observe/test_exact.py",
    "tests/kernel/observe/test_faults.py",
)

#: Emulated guests are some ten times slower than the machine below them.
_TEST_TIMEOUT_S = 400
_GUEST_TIMEOUT_S = 1500.0


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


def run_suite(
    kernels: list[str], image: Image, *, accelerator: str, paths: tuple[str, ...] = PATHS
) -> int:
    """Run the tests on kernels, keep the results, and return 0 if all passed.

    Args:
        kernels: Names out of `image.KERNELS`.
        image: What guests are made of.
        accelerator: ``tcg`` or ``kvm``.
        paths: Of tests.
    """
    failed = []
    for kernel in kernels:
        folder = RESULTS / kernel
        shutil.rmtree(folder, ignore_errors=True)
        outcome = _round(kernel, image, accelerator, _pytest(paths), folder=folder)
        if outcome.end is not End.DONE or outcome.status:
            failed.append(kernel)
    for kernel in kernels:
        others = [
            one for one in KERNELS if one != kernel and (RESULTS / one / "snapshots").exists()
        ]
        if not others:
            continue
        crossed = _pytest(("tests/guests/inside/test_other_kernels.py",), report="crossed")
        outcome = _round(
            kernel, image, accelerator, crossed, folder=RESULTS / kernel, others=others
        )
        if outcome.end is not End.DONE or outcome.status:
            failed.append(f"{kernel} with snapshots of {', '.join(others)}")
    for one in failed:
        print(f"guests: FAILED: {one}", file=sys.stderr)
    return 1 if failed else 0


def _pytest(paths: tuple[str, ...], report: str = "tests") -> list[str]:
    command = ["python", "-m", "pytest", "-q", "--timeout", str(_TEST_TIMEOUT_S)]
    return [*command, f"--junitxml=/out/{report}.xml", "-p", "no:cacheprovider", *paths]


def _round(
    kernel: str,
    image: Image,
    accelerator: str,
    command: list[str],
    *,
    folder: Path,
    others: Sequence[str] = (),
) -> Outcome:
    print(f"guests: kernel {kernel}", file=sys.stderr, flush=True)
    began = time.monotonic()
    job = Job(
        command,
        folders={one: RESULTS / one / "snapshots" for one in others},
        timeout_s=_GUEST_TIMEOUT_S,
    )
    outcome = run_job(image, kernel, job, out=folder, accelerator=accelerator)
    print(f"guests: kernel {kernel}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return outcome


def verdicts(kernel: str) -> dict[str, Verdict]:
    """Return how the tests of each file went, by the path of the file."""
    counts: dict[str, list[ET.Element]] = {}
    for report in sorted((RESULTS / kernel).glob("*.xml")):
        for case in ET.parse(report).iter("testcase"):
            counts.setdefault(case.get("classname", "").replace(".", "/") + ".py", []).append(case)
    found = {}
    for path, cases in counts.items():
        skipped = [case.find("skipped") for case in cases if case.find("skipped") is not None]
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


def doctor(kernel: str) -> dict[str, object]:
    """Return what `snaplib doctor` said in the guest."""
    told: dict[str, object] = json.loads((RESULTS / kernel / "doctor.json").read_text())
    return told
