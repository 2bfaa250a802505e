"""Run arrays: joining is a union, whatever overlaps."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from snaplib.track.runs import PAGE_BYTES, RUN_DTYPE, empty_runs, join_runs


def runs_of(pages: dict[int, int]) -> np.ndarray:
    """Return runs of one page each, of page number -> state."""
    runs = np.zeros(len(pages), RUN_DTYPE)
    runs["start"] = np.array(sorted(pages), np.uint64) * PAGE_BYTES
    runs["pages"] = 1
    runs["state"] = [pages[page] for page in sorted(pages)]
    return runs


def pages_of(runs: np.ndarray) -> dict[int, int]:
    found: dict[int, int] = {}
    for run in runs:
        first = int(run["start"]) // PAGE_BYTES
        for page in range(first, first + int(run["pages"])):
            assert page not in found
            found[page] = int(run["state"])
    return found


parts = st.lists(st.dictionaries(st.integers(0, 40), st.integers(0, 2)), max_size=4)


@given(parts)
def test_joining_keeps_every_page_once_and_what_the_first_part_says(maps):
    expected: dict[int, int] = {}
    for one in maps:
        expected = {**one, **expected}
    joined = join_runs([join_runs([runs_of(one)]) for one in maps])
    assert pages_of(joined) == expected


@given(parts)
def test_joined_runs_are_ascending_and_as_long_as_can_be(maps):
    joined = join_runs([runs_of(one) for one in maps])
    for left, right in itertools.pairwise(joined):
        end = left["start"] + left["pages"] * np.uint64(PAGE_BYTES)
        assert end <= right["start"]
        assert end < right["start"] or left["state"] != right["state"]


def test_joining_nothing_gives_no_runs():
    assert join_runs([]).size == 0
    assert join_runs([empty_runs(), empty_runs()]).dtype == RUN_DTYPE


def test_the_parts_are_left_as_they_are():
    part = runs_of({1: 0, 2: 0})
    part.flags.writeable = False
    assert pages_of(join_runs([part, part])) == {1: 0, 2: 0}
