"""Runs of pages as numpy arrays.

A *run* is a stretch of adjacent pages of one process in the same state. An array of runs is
ascending and has no overlaps.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from snaplib.arrays import distinct

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["PAGE_BYTES", "RUN_DTYPE", "RunArray", "empty_runs", "join_runs"]

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

#: One run of pages. ``start`` is an address in bytes, ``pages`` a count, ``kind`` a
#: `snaplib.track.MemoryKind`, ``why`` a `snaplib.track.Unknown`, ``state`` the
#: `snaplib.kernel.pagemap.Category` bits of the pages, 0 where the kernel was not asked.
RUN_DTYPE = np.dtype(
    [("start", "u8"), ("pages", "u8"), ("state", "u2"), ("kind", "u1"), ("why", "u1")], align=True
)

#: An array of shape (n,) and dtype `RUN_DTYPE`.
RunArray = npt.NDArray[np.void]


def empty_runs() -> RunArray:
    """Return no runs."""
    return np.empty(0, RUN_DTYPE)


def join_runs(parts: Iterable[RunArray]) -> RunArray:
    """Return all pages of some arrays as ascending runs; adjacent ones of one state are joined.

    Of pages that several parts have, what the first part says of them holds.
    """
    arrays = [part for part in parts if part.size]
    if not arrays:
        return empty_runs()
    runs = np.concatenate(arrays)
    if runs.size == 1:
        return runs
    order = np.argsort(runs["start"], kind="stable")
    ends = _ends(runs)
    overlap = (ends[order][:-1] > runs["start"][order][1:]).any()
    runs = _without_overlap(runs, ends) if overlap else runs[order]
    ends = _ends(runs)
    head = np.ones(runs.size, bool)
    head[1:] = (
        (ends[:-1] != runs["start"][1:])
        | (runs["state"][:-1] != runs["state"][1:])
        | (runs["kind"][:-1] != runs["kind"][1:])
        | (runs["why"][:-1] != runs["why"][1:])
    )
    first = np.flatnonzero(head)
    joined = runs[first]
    joined["pages"] = np.add.reduceat(runs["pages"], first)
    return joined


def _ends(runs: RunArray) -> npt.NDArray[np.uint64]:
    ends: npt.NDArray[np.uint64] = runs["start"] + runs["pages"] * np.uint64(PAGE_BYTES)
    return ends


def _without_overlap(runs: RunArray, ends: npt.NDArray[np.uint64]) -> RunArray:
    """Cut runs at each other's bounds; of each piece that several have, keep the first."""
    bounds = distinct(np.concatenate((runs["start"], ends)))
    first = np.searchsorted(bounds, runs["start"])
    count = np.searchsorted(bounds, ends) - first
    # Numbers of the pieces of each run, one after another: first, first + 1, ...
    offsets = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    pieces, whose = np.unique(np.repeat(first, count) + offsets, return_index=True)
    cut = runs[np.repeat(np.arange(runs.size), count)[whose]]
    cut["start"] = bounds[pieces]
    cut["pages"] = (bounds[pieces + 1] - bounds[pieces]) // np.uint64(PAGE_BYTES)
    return cut
