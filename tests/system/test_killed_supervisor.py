"""``kill -9`` of ``snaplib run`` at any moment: the task runs or is restorable, never half."""

from __future__ import annotations

import random
import signal
import sys
import time

from tests.system.conftest import WORKLOADS, Bench

SAVED = 75
#: Prime, so that no period of ours lines up with it.
KILLS = 23
LINES = 60_000


def test_killed_at_23_random_moments(bench: Bench) -> None:
    """One task, killed supervisors in all its stages: starting, running, dumping, restoring.

    Whatever was killed when, running the same command again takes over or resumes, until the task has ended with
    every line written once and in order.
    """
    chance = random.Random(KILLS)
    command = [sys.executable, str(WORKLOADS / "numbered.py"), str(LINES), "0.004"]
    out = bench.folder / "out"
    ends = []
    for _ in range(KILLS):
        with out.open("ab") as stream, (bench.folder / "err").open("ab") as errors:
            process = bench.start(["run", "--", *command], stdout=stream, stderr=errors)
        moment_s = chance.uniform(0.0, 0.9)
        time.sleep(moment_s)
        noticed = chance.random() < 0.6
        if noticed:
            process.send_signal(signal.SIGTERM)
            time.sleep(chance.uniform(0.0, 0.5))
        process.kill()
        ends.append(process.wait())
        assert len(bench.sessions()) <= 1, "the command was started twice"
    # A kill can come after the task was saved and the run had ended by itself; a notice before Python was up.
    assert sum(end < 0 for end in ends) >= KILLS // 2, ends

    with out.open("ab") as stream:
        process = bench.start(["run", "--", *command], stdout=stream)
    assert process.wait(110) == 0, (bench.folder / "err").read_text()
    written = out.read_bytes()
    assert written == b"".join(b"line %09d\n" % number for number in range(1, LINES + 1))
    assert bench.sessions() == []
