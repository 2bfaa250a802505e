"""Real programs under tracking, and counts against what a program says of itself."""

from __future__ import annotations

import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest

from snaplib.errors import TaskEnded
from snaplib.task import Task
from snaplib.track import Basis, Unknown, WriteProtect, open_tracker

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.mark.slow
@pytest.mark.require("write_protect", "pidfd", "ptrace")
def test_counts_agree_with_what_a_program_logs():
    # The same for 60 s: python -m tests.benchmarks dirty-accuracy
    command = [sys.executable, "-m", "tests.benchmarks", "dirty-accuracy", "--check"]
    subprocess.run([*command, "--seconds", "13"], cwd=ROOT, check=True)


@pytest.mark.slow
@pytest.mark.require("write_protect", "pidfd", "ptrace")
def test_a_program_that_checks_itself_ends_well_under_tracking():
    workload = ROOT / "tests" / "workloads" / "memory_pages.py"
    with subprocess.Popen(
        [sys.executable, workload, "48", "100000"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline()
            with Task.attach(process.pid) as task, WriteProtect(task) as tracker:
                tracker.arm()
                for number in range(101):
                    assert tracker.scan(still=number % 5 == 0).complete
                    time.sleep(0.02)
            # It checks all of its memory in every round, so these are after the tracker's end.
            lines = [process.stdout.readline() for _ in range(5)]
            assert all(lines), "it found memory that is not what it should be"
        finally:
            process.kill()


def test_a_task_that_ends_while_it_is_tracked(victim, require):
    require("write_protect", "pidfd", "ptrace")
    with Task.attach(victim.pid) as task, WriteProtect(task) as tracker:
        tracker.arm()
        victim.process.kill()
        victim.process.wait()
        with pytest.raises(TaskEnded):
            tracker.scan()


def test_sampling_arms_large_mappings_in_part_and_says_so(victim, require):
    require("write_protect", "pidfd", "ptrace")
    pages = 64 * 512
    address = victim("map", "anon", pages)
    victim("store", address, 0, pages)
    with Task.attach(victim.pid) as task, open_tracker(task, sample=Fraction(1, 8)) as tracker:
        report = tracker.arm()
        assert report.basis is Basis.SAMPLED
        victim("store", address, 0, pages)
        scan = tracker.scan()
        assert not scan.complete
        assert pages // 8 * 0.8 < scan.pages < pages // 8 * 1.3
        assert scan.estimate.pages == pytest.approx(pages, rel=0.02)
        assert scan.estimate.standard_error_pages < pages * 0.1


def test_memory_that_the_disk_may_fill_at_any_time_is_never_clean(compiled, tmp_path, require):
    require("write_protect", "pidfd", "ptrace")
    with subprocess.Popen(
        [compiled("asynchronous"), "1024"], stdout=subprocess.PIPE, cwd=tmp_path
    ) as process:
        try:
            process.stdout.readline()
            with Task.attach(process.pid) as task, WriteProtect(task) as tracker:
                tracker.arm()
                for _ in range(2):
                    found = tracker.scan().process(process.pid)
                    assert found.dirty["pages"].sum() >= 1024
                    assert Unknown.ASYNCHRONOUS in found.untracked["why"]
                assert task.alive()
        finally:
            process.kill()
