"""Dirty figures from scans."""

from __future__ import annotations

import numpy as np
import pytest

from snaplib.observe.dirty import DirtyFigures, ScanHistory
from snaplib.track import Basis, DirtyScan, Estimate, MemoryKind, ProcessScan
from snaplib.track.runs import PAGE_BYTES, RUN_DTYPE, empty_runs

PRIVATE, SHARED, FILE = MemoryKind.PRIVATE, MemoryKind.SHARED, MemoryKind.SHARED_FILE


def scan(*processes: list[tuple[int, int, MemoryKind]], estimate: float | None = None) -> DirtyScan:
    found = []
    pages = 0
    for number, one in enumerate(processes):
        runs = np.zeros(len(one), RUN_DTYPE)
        for row, (first, count, kind) in zip(runs, one, strict=True):
            row["start"], row["pages"], row["kind"] = first * PAGE_BYTES, count, kind.value
            pages += count
        found.append(ProcessScan(number, runs, empty_runs()))
    return DirtyScan(
        time_s=2.0,
        since_s=1.0,
        duration_s=0.0,
        frozen_s=0.0,
        still=False,
        basis=Basis.WRITE_PROTECT if estimate is None else Basis.SAMPLED,
        processes=tuple(found),
        estimate=Estimate(float(pages) if estimate is None else estimate),
    )


def figures(one: DirtyScan) -> DirtyFigures:
    history = ScanHistory(PAGE_BYTES, sampled=one.basis is Basis.SAMPLED)
    history.begin(1.0)
    history.add(one)
    return history.figures(1 << 40)


@pytest.mark.parametrize(
    ("processes", "pages", "runs"),
    [
        ([[]], 0, 0),
        ([[(10, 5, PRIVATE)]], 5, 1),
        ([[(10, 5, PRIVATE), (16, 1, PRIVATE)]], 6, 2),
        ([[(10, 5, PRIVATE), (15, 1, SHARED)]], 6, 1),  # they touch
        ([[(10, 5, PRIVATE)], [(15, 1, PRIVATE)]], 6, 2),  # of two processes
        ([[(10, 5, PRIVATE), (15, 7, FILE), (22, 1, PRIVATE)]], 6, 2),  # no dump has the file's
    ],
)
def test_runs_are_places(processes, pages, runs) -> None:
    found = figures(scan(*processes))
    assert found.rate_bytes_s == pages * PAGE_BYTES
    assert found.runs == runs


def test_runs_of_a_sample_are_scaled_as_the_pages_are() -> None:
    found = figures(scan([(10, 5, PRIVATE), (20, 5, PRIVATE)], estimate=80.0))
    assert found.rate_bytes_s == 80 * PAGE_BYTES
    assert found.runs == 16
