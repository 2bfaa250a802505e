"""Dirty figures against a program that keeps the truth itself, and dumpable bytes against a real dump."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from snaplib.criu import find_criu
from snaplib.observe import Watch
from snaplib.track import Basis, DirtyScan, Estimate, ProcessScan, open_tracker
from snaplib.track.runs import PAGE_BYTES, RUN_DTYPE, empty_runs

WORKLOADS = Path(__file__).parents[1] / "workloads"

EPOCHS = 60
PAGES_AN_EPOCH = 6000


@pytest.fixture(autouse=True)
def _needs(require) -> None:
    require("bpf_program", "bpf_raw_tracepoint", "btf")


@pytest.fixture(scope="session")
def dirty(tmp_path_factory) -> str:
    """The workload that knows what it has written."""
    program = tmp_path_factory.mktemp("dirty") / "dirty"
    subprocess.run(["gcc", "-O1", "-static", "-o", program, WORKLOADS / "dirty.c"], check=True)
    return str(program)


def test_armed_figures_are_the_truth(start, dirty, require) -> None:
    """Each of 60 times within 1 %, of what was written since the last look and in the last ten."""
    require("write_protect")
    workload = start.command(dirty)
    with Watch(workload.task, 600.0, arm="all") as watch:
        profiles = [watch.profile()]
        assert profiles[0].dirty_basis == "armed"
        for epoch in range(EPOCHS):
            truth = [int(word) for word in workload.do(str(PAGES_AN_EPOCH)).split()]
            profiles.append(profile := watch._profiler.take())
            for ages, distinct in enumerate(truth[: epoch + 1]):
                # The age of the scan that began the interval in which the oldest was written.
                age_s = profile.page_ages.ages_s[ages]
                seen = profile.distinct_dirty_bytes(age_s) / PAGE_BYTES
                assert seen == pytest.approx(distinct, rel=0.01, abs=8)
            since = profile.page_ages.ages_s[0]
            assert profile.dirty_rate_bytes_s == pytest.approx(
                truth[0] * PAGE_BYTES / since, rel=0.02
            )
        assert profile.untracked_bytes == 0
        assert profile.losses.total == 0


def test_sampled_figures_are_near_the_truth(start, dirty, require) -> None:
    """An eighth of the memory tells the whole within 10 %."""
    require("write_protect")
    workload = start.command(dirty)
    with Watch(workload.task, 600.0, arm="sample") as watch:
        assert watch.profile().dirty_basis == "sampled"
        for _ in range(EPOCHS):
            truth = [int(word) for word in workload.do(str(4 * PAGES_AN_EPOCH)).split()]
            profile = watch._profiler.take()
            seen = profile.distinct_dirty_bytes(profile.page_ages.ages_s[0]) / PAGE_BYTES
            assert seen == pytest.approx(truth[0], rel=0.10)
        oldest = profile.distinct_dirty_bytes(profile.page_ages.ages_s[9]) / PAGE_BYTES
        assert oldest == pytest.approx(truth[9], rel=0.10)


def test_faults_alone_say_that_they_are_first_touches(start, dirty) -> None:
    workload = start.command(dirty)
    with Watch(workload.task, 600.0, arm="none") as watch:
        workload.do(str(PAGES_AN_EPOCH))
        profile = watch._profiler.take()
    assert profile.dirty_basis == "faults"
    assert profile.distinct_dirty_bytes(60) < 100 * PAGE_BYTES, "all pages were there before"


def test_armed_faults_are_the_pages_written(start, dirty, require) -> None:
    """The program in the kernel counts what the scan finds."""
    require("write_protect")
    workload = start.command(dirty)
    with Watch(workload.task, 600.0, arm="all") as watch:
        workload.do(str(PAGES_AN_EPOCH))
        before = watch._profiler.take()
        truth = int(workload.do(str(PAGES_AN_EPOCH)).split()[0])
        after = watch._profiler.take()
    seen = after.faults.user_protected - before.faults.user_protected
    assert seen == pytest.approx(truth, rel=0.01, abs=8)


def _scan(pages: int, since_s: float) -> DirtyScan:
    runs = np.zeros(1, RUN_DTYPE)
    runs["start"], runs["pages"] = 1 << 32, pages
    return DirtyScan(
        time_s=since_s + 1.0,
        since_s=since_s,
        duration_s=0.0,
        frozen_s=0.0,
        still=True,
        basis=Basis.WRITE_PROTECT,
        processes=(ProcessScan(1, runs, empty_runs()),),
        estimate=Estimate(float(pages)),
    )


def test_scans_of_someone_else_can_be_fed(start, dirty) -> None:
    with Watch(start.command(dirty).task, 600.0, arm="none") as watch:
        watch.feed(_scan(23, 1.0))
        watch.feed(_scan(5, 2.0))
        profile = watch._profiler.take()
    assert profile.dirty_basis == "armed"
    assert profile.distinct_dirty_bytes(1e9) == 23 * PAGE_BYTES
    assert profile.dirty_rate_bytes_s == 5 * PAGE_BYTES


def test_who_disarms_lets_someone_else_arm(start, dirty, require) -> None:
    require("write_protect")
    workload = start.command(dirty)
    with Watch(workload.task, 600.0, arm="all") as watch:
        workload.do("23")
        watch.disarm()
        with open_tracker(workload.task) as tracker:
            assert tracker.basis is Basis.WRITE_PROTECT
            tracker.arm()
            workload.do("230")
            watch.feed(tracker.scan())
        profile = watch._profiler.take()
    assert profile.dirty_basis == "armed"
    assert 200 * PAGE_BYTES < profile.distinct_dirty_bytes(60) < 300 * PAGE_BYTES


MIXED = """
import ctypes, mmap, os, sys
anonymous = mmap.mmap(-1, 40 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
anonymous[:30 << 20] = os.urandom(1 << 20) * 30
shared = mmap.mmap(-1, 20 << 20)
shared[:10 << 20] = b'x' * (10 << 20)
memfd = os.memfd_create('open-but-not-mapped'); os.write(memfd, b'y' * (3 << 20))
with open(sys.executable, 'rb') as file:
    private = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
for at in range(0, len(private), 8192):
    private[at] = 0
clean = [anonymous[at] for at in range(30 << 20, 40 << 20, 4096)]  # zero pages, read only
if os.fork():
    print('ready', flush=True)
else:
    anonymous[:5 << 20] = b'c' * (5 << 20)
sys.stdin.readline()
"""


def test_dumpable_bytes_are_what_criu_dumps(start, tmp_path, require) -> None:
    """An independent source: the pages in the images of a real dump, within 1 %."""
    require("all")
    workload = start(MIXED)
    with Watch(workload.task, 600.0, arm="none") as watch:
        profile = watch._profiler.take()
    criu = find_criu()
    result = subprocess.run(
        [
            criu.path,
            "dump",
            "--tree",
            str(workload.pid),
            "--images-dir",
            tmp_path,
            "--leave-running",
            "--ext-unix-sk",
            "--shell-job",
            "--external",
            "file[1:2]",
            "-v4",
            "-o",
            "log",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    log = (tmp_path / "log").read_text(errors="replace")
    assert result.returncode == 0, [line for line in log.splitlines() if "Error" in line]
    written = sum(file.stat().st_size for file in tmp_path.glob("pages-*.img"))
    assert len(profile.members) == 2
    assert profile.dumpable_bytes == pytest.approx(written, rel=0.01)
