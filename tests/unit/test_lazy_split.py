"""What a task that is restored lazily gets first."""

from __future__ import annotations

import numpy as np

from snaplib.checkpoint.lazy import hot_frames
from snaplib.store.index import FRAME, PAGE_BYTES, RUN, Index


def an_index(runs: list[tuple[int, int]], stored_bytes: list[int]) -> Index:
    """Runs as (pages, position), and frames of ten pages."""
    rows = [
        (1, 4, 5, number * 1000 * PAGE_BYTES, pages, position)
        for number, (pages, position) in enumerate(runs)
    ]
    frames = [(0, 1, 0, size, 10, 0) for size in stored_bytes]
    return Index.build(np.array(rows, RUN), np.array(frames, FRAME))


def test_what_was_copied_last_comes_first() -> None:
    """Neither zeros nor frames of which nothing is good any more are worth fetching."""
    index = an_index([(35, 0), (15, 40), (10, 70), (10, 80)], [9, 9, 9, 9, 9, 9, 9, 0, 9])
    assert hot_frames(index) == [8, 5, 4, 3]
    assert hot_frames(an_index([(5, 0)], [9])) == [0]
    assert hot_frames(an_index([], [])) == []
