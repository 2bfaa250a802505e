"""``kill -9`` of ``snaplib run`` at any moment: the task runs or is restorable, never half."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

from tests.system.conftest import WORKLOADS, Bench
from tests.workloads.chained import check

SAVED = 75
#: Prime, so that no period of ours lines up with it.
KILLS = 23


def test_killed_at_23_random_moments(bench: Bench) -> None:
    """One task, killed supervisors in all its stages: starting, running, dumping, restoring.

    Whatever was killed when, running the same command again takes over or resumes, until the task has ended with
    every line written once and in order.
    """
    chance = random.Random(KILLS)
    out, finish = bench.folder / "out", bench.folder / "finish"
    command = [sys.executable, WORKLOADS / "chained.py", finish]

    def start() -> subprocess.Popen[bytes]:
        with out.open("ab") as stream, (bench.folder / "err").open("ab") as errors:
            return bench.start(["run", "--", *command], stdout=stream, stderr=errors)

    # How long a start takes here; a machine that is very busy gets no more than this.
    began = time.monotonic()
    process = start()
    bench.wait_for_task()
    start_s = min(time.monotonic() - began, 1.5)
    process.kill()
    ends = [process.wait()]
    while len(ends) < KILLS:
        process = start()
        time.sleep(start_s * chance.uniform(0.0, 2.0))
        if chance.random() < 0.6:
            process.send_signal(signal.SIGTERM)
            time.sleep(start_s * chance.uniform(0.0, 1.0))
        process.kill()
        ends.append(process.wait())
        assert len(bench.sessions()) <= 1, "the command was started twice"
    # A kill can come after the task was saved and the run had ended by itself; a notice before Python was up.
    assert sum(end < 0 for end in ends) >= KILLS // 2, ends

    finish.touch()
    assert start().wait(110) == 0, (bench.folder / "err").read_text()
    assert check(out.read_text()) > 0
    assert bench.sessions() == []
