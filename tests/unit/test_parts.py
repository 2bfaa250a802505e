"""Runs cut at the borders of ranges, against each page by itself."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from snaplib.checkpoint.parts import split_parts
from snaplib.store.index import PAGE_BYTES, RUN


@st.composite
def rising(draw, most):
    """Pairs of numbers, each larger than the one before, ends perhaps the same as the next begins."""
    borders = sorted(draw(st.lists(st.integers(0, 60), max_size=2 * most)))
    pairs = list(zip(borders[::2], borders[1::2], strict=False))
    return [(low, high) for low, high in pairs if low < high]


@given(rising(6), rising(6))
def test_every_page_is_in_one_part(runs, ranges):
    """It says of each page whether a range has it, and where it lies in the log."""
    rows = [
        (1, 4, 7, low * PAGE_BYTES, high - low, 100 * number)
        for number, (low, high) in enumerate(runs)
    ]
    borders = np.array(ranges, np.uint64).reshape(-1, 2) * np.uint64(PAGE_BYTES)
    parts, inside = split_parts(np.array(rows, RUN), borders)
    found = {}
    for part, is_inside in zip(parts.tolist(), inside.tolist(), strict=True):
        kind, flags, space, vaddr, pages, position = part
        assert (kind, flags, space) == (1, 4, 7)
        assert pages > 0
        for step in range(pages):
            found[vaddr // PAGE_BYTES + step] = position + step, is_inside
    expected = {
        page: (100 * number + page - low, any(begin <= page < end for begin, end in ranges))
        for number, (low, high) in enumerate(runs)
        for page in range(low, high)
    }
    assert found == expected
    assert parts["vaddr"].tolist() == sorted(parts["vaddr"].tolist())
