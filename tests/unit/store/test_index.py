"""The index: finding pages, and its stored form."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from snaplib.errors import StoreTooNew
from snaplib.store.index import FRAME, PAGE_BYTES, RUN, Index, Space
from snaplib.store.index_format import index_from_bytes, index_to_bytes


@st.composite
def indexes(draw):
    """Return an index and, of each page, its position; frames hold pages that no run has, too."""
    rows, where, position = [], {}, 0
    for space in draw(st.sets(st.tuples(st.integers(1, 2), st.integers(0, 3)), max_size=4)):
        page = draw(st.integers(0, 1000))
        for count, gap, dead in draw(
            st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3), st.integers(0, 3)), max_size=6)
        ):
            rows.append((space[0], 4, space[1], page * PAGE_BYTES, count, position))
            for step in range(count):
                where[Space(*space), page + step] = position + step
            position += count + dead
            page += count + gap
    frames, left = [], position
    while left:
        pages = min(left, draw(st.integers(1, 7)))
        frames.append((0, 0, 0, pages * PAGE_BYTES, pages, 0))
        left -= pages
    order = draw(st.permutations(range(len(rows))))
    runs = np.array([rows[number] for number in order], RUN)
    return Index.build(runs, np.array(frames, FRAME)), where


@given(indexes())
def test_sorted_and_sound(made):
    """Runs in any order become sorted, without problems, and survive being stored."""
    index, where = made

    assert index.problems() == []
    assert index.spaces() == sorted({space for space, _ in where})
    again = index_from_bytes(index_to_bytes(index))
    assert np.array_equal(again.runs, index.runs)
    assert np.array_equal(again.frames, index.frames)
    assert again.pages == index.pages


@given(indexes(), st.data())
def test_find(made, data):
    """A range of addresses gives the pages in it and no others, each where it is."""
    index, where = made
    space = data.draw(st.sampled_from(index.spaces() or [Space(1, 1)]))
    first = data.draw(st.integers(0, 1040))
    count = data.draw(st.integers(1, 60))
    found = index.find(space, first * PAGE_BYTES, count)

    pages = {}
    for run in found:
        for step in range(int(run["pages"])):
            position = int(run["position"])
            page = int(run["vaddr"]) // PAGE_BYTES + step
            pages[page] = position + step
    expected = {
        page: position
        for (owner, page), position in where.items()
        if owner == space and first <= page < first + count
    }
    assert pages == expected

    positions = [
        int(index.starts[piece["frame"]]) + int(piece["first"]) + step
        for piece in index.pieces(found)
        for step in range(int(piece["pages"]))
    ]
    assert positions == [expected[page] for page in sorted(expected)]
    for piece in index.pieces(found):
        assert int(piece["first"]) + int(piece["pages"]) <= int(
            index.frames["pages"][piece["frame"]]
        )


def small_index():
    runs = np.array([(1, 4, 7, number * 8192, 1, number) for number in range(50)], RUN)
    return Index.build(runs, np.array([(0, 0, 0, 50 * PAGE_BYTES, 50, 0)], FRAME))


def test_every_flipped_bit_is_found():
    """No single bit of a stored index can change unnoticed."""
    stored = index_to_bytes(small_index())
    for at in range(len(stored)):
        damaged = bytearray(stored)
        damaged[at] ^= 1 << at % 8
        with pytest.raises((ValueError, StoreTooNew)):
            index_from_bytes(bytes(damaged))
    for size in range(len(stored)):
        with pytest.raises(ValueError, match="offset"):
            index_from_bytes(stored[:size])


def test_newer_format():
    """An index of a newer snaplib says so, though its checksum is of a form we do not know."""
    stored = bytearray(index_to_bytes(small_index()))
    stored[8:12] = struct.pack("<I", 2)

    with pytest.raises(StoreTooNew, match="format 2"):
        index_from_bytes(bytes(stored))
    assert xxhash.xxh3_64_intdigest(b"") == 0x2D06800538D394C2


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"vaddr": 4095}, "not aligned"),
        ({"pages": 0}, "is empty"),
        ({"vaddr": 0x9000}, "overlaps"),
        ({"vaddr": 0x20000}, "out of order"),
        ({"position": 60}, "beyond the last frame"),
        ({"vaddr": (1 << 64) - 4096, "pages": 2}, "past the end"),
    ],
)
def test_contradictions(change, problem):
    """What cannot be right in an index is told."""
    runs = np.array([(1, 4, 7, 0x8000, 2, 0), (1, 4, 7, 0xA000, 2, 2)], RUN)
    for name, value in change.items():
        runs[name][0] = value
    index = Index(runs, np.array([(0, 0, 0, 4 * PAGE_BYTES, 4, 0)], FRAME))

    assert any(problem in found for found in index.problems())


def test_a_million_runs_are_quick():
    """Building, storing, loading and searching need no loop over runs: a million take seconds."""
    count = 1_000_000
    runs = np.zeros(count, RUN)
    runs["kind"], runs["pages"] = 1, 1
    runs["vaddr"] = np.arange(count)[::-1] * np.uint64(2 * PAGE_BYTES)
    runs["position"] = np.arange(count)
    frames = np.zeros(count // 250, FRAME)
    frames["pages"] = 250
    index = index_from_bytes(index_to_bytes(Index.build(runs, frames)))

    assert index.problems() == []
    assert len(index.find(Space(1, 0), 0, 1 << 30)) == count
    assert int(index.pieces(index.runs)["pages"].sum()) == count
