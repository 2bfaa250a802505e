"""What is tried in each guest, and what is kept of how it went: one folder of results a kernel.

A guest gets the snapshots that guests of other kernels have left: hence two rounds, for what an old kernel makes of a
new one's is as interesting as the other way round.  Last come the moves of a task from guest to guest.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.guests.image import KERNELS, Image
from tests.guests.machine import End, Job
from tests.guests.pair import MOVES, run_pair
from tests.guests.results import CROSSED, RESULTS, note_tests, told_in, write_results
from tests.guests.running import prefixed, run_job

#: Tests that every guest runs: those made for guests, and those of what a kernel decides.
PATHS = (
    "tests/guests/inside/test_host.py",
    "tests/guests/inside/test_leave_snapshots.py",
    "tests/guests/inside/test_softdirty.py",
    "tests/guests/inside/test_chains.py",
    "tests/kernel/test_dump_restore.py::test_a_feature_comes_back",
    "tests/kernel/test_freezer.py",
    "tests/kernel/track/test_writeprotect.py",
    "tests/kernel/observe/test_exact.py",
)

#: Emulated guests are some ten times slower than the machine below them.
_TEST_TIMEOUT_S = 400
#: For all tests of a guest, and for the guest: tests that are ended in time still leave what they have.
_TESTS_TIMEOUT_S = 1500
_GUEST_TIMEOUT_S = 1600.0


def run_suite(
    kernels: Sequence[str],
    image: Image,
    *,
    accelerator: str,
    paths: tuple[str, ...] = PATHS,
    at_once: int | None = None,
) -> int:
    """Run the tests on kernels, keep the results, and return 0 if all passed.

    Results are written anew where all tests are run, and else over those of earlier runs.

    Args:
        kernels: Names out of `image.KERNELS`.
        image: What guests are made of.
        accelerator: ``tcg`` or ``kvm``.
        paths: Of tests; the moves are made only if these are all.
        at_once: How many guests run at a time; a guest keeps one CPU busy.  By default 2, or 1 on a single CPU.
    """
    began = time.monotonic()
    at_once = at_once or min(2, os.cpu_count() or 1)

    def alone(kernel: str) -> str | None:
        if paths == PATHS:
            shutil.rmtree(RESULTS / kernel, ignore_errors=True)
        fine = _round(kernel, image, accelerator, paths)
        return None if fine else kernel

    def crossed(kernel: str) -> str | None:
        others = [
            one for one in KERNELS if one != kernel and (RESULTS / one / "snapshots").exists()
        ]
        if not others:
            return None
        fine = _round(kernel, image, accelerator, (CROSSED,), others=others)
        return None if fine else f"{kernel} with snapshots of {', '.join(others)}"

    failed: list[str | None] = []
    with ThreadPoolExecutor(at_once) as pool:
        if paths != (CROSSED,):
            failed += pool.map(alone, kernels)
        if paths in (PATHS, (CROSSED,)):
            failed += pool.map(crossed, kernels)
    if paths == PATHS and len(kernels) == len(KERNELS):
        for way, pair in MOVES.items():
            if not run_pair(image, pair, way=way, accelerator=accelerator):
                failed.append(f"{way} move from {pair[0]} to {pair[1]}")
    print(f"guests: {write_results()}", file=sys.stderr)
    for one in filter(None, failed):
        print(f"guests: FAILED: {one}", file=sys.stderr)
    print(f"guests: all in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return 1 if any(failed) else 0


def _pytest(paths: Sequence[str]) -> list[str]:
    command = ["timeout", "--signal=INT", str(_TESTS_TIMEOUT_S), "python", "-m", "pytest", "-q"]
    command += ["-p", "tests.guests.inside.telling", "-o", "console_output_style=classic"]
    return [*command, "--timeout", str(_TEST_TIMEOUT_S), "-p", "no:cacheprovider", *paths]


def _round(
    kernel: str,
    image: Image,
    accelerator: str,
    paths: Sequence[str],
    others: Sequence[str] = (),
) -> bool:
    print(f"guests: kernel {kernel}", file=sys.stderr, flush=True)
    job = Job(
        _pytest(paths),
        folders={one: RESULTS / one / "snapshots" for one in others},
        timeout_s=_GUEST_TIMEOUT_S,
    )
    outcome = run_job(
        image,
        kernel,
        job,
        out=RESULTS / kernel,
        accelerator=accelerator,
        show=prefixed(kernel),
    )
    note_tests(kernel, told_in(outcome.output))
    print(f"guests: kernel {kernel}: {outcome.duration_s:.0f} s", file=sys.stderr, flush=True)
    return outcome.end is End.DONE and outcome.status == 0
