"""Sets of pages against Python's sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaplib.store import RunSet

ranges = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda pair: (pair[0], sum(pair))),
    max_size=12,
)


def run_set(pairs):
    return RunSet.of([begin for begin, _ in pairs], [end for _, end in pairs])


def python_set(pairs):
    return {page for begin, end in pairs for page in range(begin, end)}


def unpacked(runs):
    """Return a set's pages, having checked that its runs are normal."""
    assert (runs.begins < runs.ends).all()
    assert (runs.ends[:-1] < runs.begins[1:]).all()
    return python_set(zip(runs.begins.tolist(), runs.ends.tolist(), strict=True))


@given(ranges)
def test_of(pairs):
    """Ranges in any order, overlapping or empty, make the set of their pages."""
    runs = run_set(pairs)

    assert unpacked(runs) == python_set(pairs)
    assert runs.pages == len(python_set(pairs))
    assert runs == RunSet.from_pages(sorted(python_set(pairs), reverse=True))


@given(ranges, ranges)
def test_algebra(mine, theirs):
    """Union, intersection and difference are those of sets."""
    a, b = run_set(mine), run_set(theirs)

    assert unpacked(a | b) == python_set(mine) | python_set(theirs)
    assert unpacked(a & b) == python_set(mine) & python_set(theirs)
    assert unpacked(a - b) == python_set(mine) - python_set(theirs)
    assert (a == b) == (python_set(mine) == python_set(theirs))


@given(ranges, st.lists(st.integers(0, 80)))
def test_contains(pairs, pages):
    """Membership is that of sets."""
    assert run_set(pairs).contains(pages).tolist() == [page in python_set(pairs) for page in pages]


def test_addresses_of_all_64_bits():
    """Page numbers at the top of the range are no negative numbers."""
    top = (1 << 64) - 1
    runs = RunSet.of([top - 1], [top])

    assert (runs - RunSet.of([0], [5])).pages == 1
    assert runs.contains(np.array([top - 1, 0], np.uint64)).tolist() == [True, False]


def test_backward_range():
    """A range that ends before it begins is a mistake."""
    with pytest.raises(ValueError, match="ranges"):
        RunSet.of([5], [4])
