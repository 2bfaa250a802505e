"""Runs of pages, cut where one kind of memory ends and another begins."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from snaplib.criu.pagemap import PAGE_BYTES

__all__ = ["split_parts"]


def split_parts(
    runs: npt.NDArray[np.void], ranges: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.void], npt.NDArray[np.bool_]]:
    """Cut runs at the borders of ranges of addresses.

    Args:
        runs: RUN, shape (n,), of one space, in the order of addresses.
        ranges: uint64, shape (m, 2): begins and ends, ascending.

    Returns:
        The parts, RUN, in the order of addresses, and of each whether it lies in a range.
    """
    borders = ranges.ravel()
    begins = runs["vaddr"]
    ends = begins + runs["pages"] * np.uint64(PAGE_BYTES)
    before = np.searchsorted(borders, begins, "right")
    counts = np.searchsorted(borders, ends, "left") - before + 1
    run = np.repeat(np.arange(len(runs)), counts)
    passed = before[run] + np.arange(len(run)) - (np.cumsum(counts) - counts)[run]
    # Of each part its run's bounds, or those of the borders around it.
    ends_of_all = np.array([0, np.iinfo(np.uint64).max], np.uint64)
    edges = np.concatenate((ends_of_all[:1], borders, ends_of_all[1:]))
    low, high = np.maximum(begins[run], edges[passed]), np.minimum(ends[run], edges[passed + 1])
    some = low < high
    run, low, high = run[some], low[some], high[some]
    parts = runs[run]
    parts["vaddr"] = low
    parts["position"] += (low - begins[run]) // np.uint64(PAGE_BYTES)
    parts["pages"] = (high - low) // np.uint64(PAGE_BYTES)
    return parts, passed[some] % 2 == 1
