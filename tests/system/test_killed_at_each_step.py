"""A supervisor that is killed at one step of a dump or a restore: each unit of work is done once all the same.

Until the snapshot is committed the task runs on, and the next run takes it over.  Once the session knows of the
snapshot, the task ends.  Between the two the task runs on beside a snapshot that it has outlived.
"""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.system.conftest import WORKLOADS, Bench, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.require("all")]

SAVED = 75
SESSION = "snaplib.session:Session"
COMMIT = "snaplib.store:SnapshotWriter.commit"

#: In the order of a dump; the task runs on when it is killed at one of these.
RUNS_ON = (
    f"after {SESSION}.hold",
    "after snaplib.criu:Swrk._receive",
    f"before {SESSION}.drain",
    f"before {COMMIT}",
    f"after {COMMIT}",
)
#: And is saved at one of these.
IS_SAVED = (
    f"after {SESSION}.saved",
    f"after snaplib.criu:Swrk._reply@{SESSION}.saved",
    f"after {SESSION}.release@{SESSION}.saved",
    f"after snaplib.supervise.recorder:Recorder._end@{SESSION}.saved",
)

#: Of a restore: nothing is left but the snapshot.
IS_AS_IT_WAS = (
    f"after {SESSION}.inherit_fds@",
    f"before {SESSION}.expect_root@",
)
#: And here the task runs.
IS_RESTORED = (
    f"after {SESSION}.expect_root@",
    f"before {SESSION}.adopt_root@",
)


class Run:
    """One task, its output and its log.

    Args:
        bench: Where.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.out, self.log = bench.folder / "out", bench.folder / "log"
        self.finish = bench.folder / "finish"
        self._events = bench.folder / "events"
        self.command = ["run", "--once", "--events", self._events, "--", sys.executable]
        self.command += [WORKLOADS / "logging_units.py", self.log, self.finish]

    def begun(self) -> int:
        """Return how often the task was started, taken over or restored."""
        text = self._events.read_text() if self._events.exists() else ""
        return sum(text.count(f'"event": "{name}"') for name in ("started", "adopted", "restored"))

    def goes_on(self) -> None:
        """Wait until the task has done a few more units."""
        before = self._size()
        wait_until(lambda: self._size() > before + 20, "the task to go on")

    def _size(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    def killed(self, step: str, *, restoring: bool = False) -> subprocess.Popen[bytes]:
        """Run, or go on with, the command, give it notice, and have it die at a step; or while it is restored."""
        bench, begun = self.bench, self.begun()
        with self.out.open("ab") as out, (bench.folder / "err").open("ab") as err:
            program = ["tests.system.dying", *step.split()]
            process = bench.start_python([*program, *self.command], stdout=out, stderr=err)
        if not restoring:
            wait_until(lambda: self.begun() > begun, "the task to run")
            self.goes_on()
            process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGKILL, f"{step}: {(bench.folder / 'err').read_text()}"
        return process

    def ends(self) -> None:
        """Run the command to its end, and check what all runs together have done."""
        self.finish.touch()
        with self.out.open("ab") as out:
            assert self.bench.start(self.command, stdout=out).wait(60) == 0
        self.check()

    def check(self) -> None:
        """Check that each unit was done once, and that nothing is left to be resumed."""
        lines = self.log.read_text().split()
        assert lines == [str(number) for number in range(1, len(lines) + 1)]
        assert self.out.read_text().split() == lines
        assert self.snapshots() == 0
        assert self.bench.sessions() == []

    def snapshots(self) -> int:
        """Return how many snapshots there are."""
        return len(list(self.bench.store.glob("manifests/*/*.json")))


@pytest.fixture
def run(bench: Bench) -> Run:
    return Run(bench)


def test_at_every_step(run: Run) -> None:
    """One task, and one run after the other that takes it over, or resumes it, and dies a step later."""
    for step in RUNS_ON:
        run.killed(step)
        assert len(run.bench.sessions()) == 1, step
        run.goes_on()
    for step in IS_SAVED:
        run.killed(step)
        wait_until(lambda: not run.bench.sessions(), f"the task to end: {step}")
    run.ends()


def test_at_every_step_of_a_restore(run: Run) -> None:
    """One snapshot, that is resumed until the task runs."""
    saved = f"after {SESSION}.saved"
    run.killed(saved)
    for step in IS_AS_IT_WAS:
        wait_until(lambda: not run.bench.sessions(), "nothing to be left")
        run.killed(step, restoring=True)
        assert run.snapshots() == 1
    for step in IS_RESTORED:
        wait_until(lambda: not run.bench.sessions(), "nothing to be left")
        run.killed(step, restoring=True)
        run.bench.wait_for_task()
        run.goes_on()
        # It is taken over, and saved again.
        run.killed(saved)
    run.ends()


def test_a_task_that_outlived_its_snapshot_ends_alone(run: Run) -> None:
    """Its status is told, and the snapshot is not resumed."""
    run.killed(f"after {COMMIT}")
    assert run.snapshots() == 1
    run.goes_on()
    run.finish.touch()
    wait_until(lambda: not run.bench.sessions(), "the task to end")
    run.ends()


def test_a_task_that_outlived_its_snapshot_goes_with_its_machine(run: Run) -> None:
    """What it did since is done again, once: what it appended to its log is cut off."""
    process = run.killed(f"after {COMMIT}")
    run.goes_on()
    run.bench.machine_goes(process)
    begun = run.begun()
    with (run.bench.folder / "rest").open("wb") as out:
        process = run.bench.start(run.command, stdout=out)
    wait_until(lambda: run.begun() > begun, "the task to be resumed")
    run.goes_on()
    run.finish.touch()
    assert process.wait(60) == 0
    lines = run.log.read_text().split()
    assert lines == [str(number) for number in range(1, len(lines) + 1)]
