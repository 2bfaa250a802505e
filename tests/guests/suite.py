"""Runs what is tried in guests, two at a time, and keeps how it went: one folder of results a kernel.

A guest gets the snapshots that guests of other kernels have left: hence two guests a kernel, for what an old kernel
makes of a new one's is as interesting as the other way round.  Beside that tasks move from guest to guest.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import attrs

from tests.guests.image import KERNELS, Image
from tests.guests.machine import End, Job
from tests.guests.pair import MOVES, run_pair
from tests.guests.plan import CROSSED, FIRST, THEN
from tests.guests.results import RESULTS, note_tests, told_in, write_results
from tests.guests.running import prefixed, run_job

#: Emulated guests are some ten times slower than the machine below them.
_TEST_TIMEOUT_S = 600
#: For all tests of a guest, and for the guest: tests that are ended in time still leave what they have.
_TESTS_TIMEOUT_S = 1500
_GUEST_TIMEOUT_S = 1600.0


@attrs.frozen
class Suite:
    """What runs tests on kernels.

    Attributes:
        image: What guests are made of.
        accelerator: ``tcg`` or ``kvm``.
    """

    image: Image
    accelerator: str

    def run_all(self, kernels: Sequence[str], *, at_once: int | None = None) -> int:
        """Run what is planned for kernels, results anew; return 0 if all passed.

        Args:
            kernels: Names out of `image.KERNELS`; with all of them tasks are moved from guest to guest as well.
            at_once: How many guests of tests run at a time, beside the two of a move.  By default 2, or 1 on a single
                CPU.
        """
        began_s = time.monotonic()
        for kernel in kernels:
            shutil.rmtree(RESULTS / kernel, ignore_errors=True)
        at_once = at_once or min(2, os.cpu_count() or 1)
        with ThreadPoolExecutor(at_once) as pool, ThreadPoolExecutor(1) as mover:
            left = {kernel: pool.submit(self._run, kernel, FIRST) for kernel in kernels}

            def then(kernel: str) -> str:
                for one in left.values():
                    one.result()
                return self._run(kernel, THEN[kernel])

            jobs: list[Future[str]] = [*left.values()]
            jobs += [pool.submit(then, kernel) for kernel in kernels]
            # In a move one of the two guests mostly waits for the other, and others wait now and then.
            if len(kernels) == len(KERNELS):
                jobs += [mover.submit(self._move, way) for way in MOVES]
        return _told(began_s, [job.result() for job in jobs])

    def run_some(self, kernels: Sequence[str], paths: Sequence[str]) -> int:
        """Run tests on kernels, results over those of earlier runs; return 0 if all passed.

        Args:
            kernels: Names out of `image.KERNELS`.
            paths: Of tests.
        """
        return _told(time.monotonic(), [self._run(kernel, paths) for kernel in kernels])

    def _run(self, kernel: str, paths: Sequence[str]) -> str:
        """Run tests in a guest; return what failed, if anything did."""
        print(f"guests: kernel {kernel}", file=sys.stderr, flush=True)
        others = [
            one for one in KERNELS if one != kernel and (RESULTS / one / "snapshots").exists()
        ]
        job = Job(
            _pytest(paths),
            folders={one: RESULTS / one / "snapshots" for one in others if CROSSED in paths},
            timeout_s=_GUEST_TIMEOUT_S,
        )
        outcome = run_job(
            self.image,
            kernel,
            job,
            out=RESULTS / kernel,
            accelerator=self.accelerator,
            show=prefixed(kernel),
        )
        note_tests(kernel, told_in(outcome.output))
        print(f"guests: kernel {kernel}: {outcome.duration_s:.0f} s", file=sys.stderr, flush=True)
        return "" if outcome.end is End.DONE and outcome.status == 0 else f"kernel {kernel}"

    def _move(self, way: str) -> str:
        source, target = MOVES[way]
        moved = run_pair(self.image, (source, target), way=way, accelerator=self.accelerator)
        return "" if moved else f"{way} move from {source} to {target}"


def _told(began_s: float, failed: Sequence[str]) -> int:
    print(f"guests: {write_results()}", file=sys.stderr)
    for one in filter(None, failed):
        print(f"guests: FAILED: {one}", file=sys.stderr)
    print(f"guests: all in {time.monotonic() - began_s:.0f} s", file=sys.stderr, flush=True)
    return 1 if any(failed) else 0


def _pytest(paths: Sequence[str]) -> list[str]:
    command = ["timeout", "--signal=INT", str(_TESTS_TIMEOUT_S), "python", "-m", "pytest", "-q"]
    command += ["-p", "tests.guests.inside.telling", "-o", "console_output_style=classic"]
    return [*command, "--timeout", str(_TEST_TIMEOUT_S), "-p", "no:cacheprovider", *paths]
