"""What missing memory is made of, and what of it a task gets first."""

from __future__ import annotations

import numpy as np

from snaplib.checkpoint.lazypages.pieces import Pieces, hot_frames
from snaplib.store.codec import RAW, ZERO
from snaplib.store.index import FRAME, PAGE_BYTES, RUN, Index


def an_index(runs: list[tuple[int, int]], stored_bytes: list[int]) -> Index:
    """Runs as (pages, position), and frames of ten pages."""
    rows = [
        (1, 4, 5, number * 1000 * PAGE_BYTES, pages, position)
        for number, (pages, position) in enumerate(runs)
    ]
    frames = [(0, RAW if size else ZERO, 0, size, 10, 0) for size in stored_bytes]
    return Index.build(np.array(rows, RUN), np.array(frames, FRAME))


def test_what_was_copied_last_comes_first() -> None:
    """Neither zeros nor frames of which nothing is good any more are worth fetching."""
    index = an_index([(35, 0), (15, 40), (10, 70), (10, 80)], [9, 9, 9, 9, 9, 9, 9, 0, 9])
    assert hot_frames(index) == [8, 5, 4, 3]
    assert hot_frames(an_index([(5, 0)], [9])) == [0]
    assert hot_frames(an_index([], [])) == []


def test_pieces_of_frames() -> None:
    """A run lies in several frames, and a frame has several runs; what is zero is in none."""
    index = an_index([(15, 5), (5, 0), (10, 20)], [9, 9, 0])
    pieces = Pieces(index, index.runs)
    assert pieces.frames() == {0, 1}
    second = 1000 * PAGE_BYTES
    assert sorted(pieces.chunks(0)) == [
        (0, 5 * PAGE_BYTES, 5 * PAGE_BYTES),
        (second, 0, 5 * PAGE_BYTES),
    ]
    assert pieces.chunks(1) == [(5 * PAGE_BYTES, 0, 10 * PAGE_BYTES)]
    assert pieces.chunks(0, near=second + 4096)[0][0] == second
    addresses = [0, 4 * PAGE_BYTES, 5 * PAGE_BYTES, 15 * PAGE_BYTES, second, 2 * second]
    assert [pieces.frame_at(address) for address in addresses] == [0, 0, 1, None, 0, 2]


def test_where_nothing_is() -> None:
    """Up to the next run, and no further than is asked for."""
    index = an_index([(2, 0), (3, 2)], [9])
    pieces, second = Pieces(index, index.runs), 1000 * PAGE_BYTES
    near, most = second - 2 * PAGE_BYTES, 16 * PAGE_BYTES
    addresses = [0, PAGE_BYTES, 2 * PAGE_BYTES, near, second, second + 3 * PAGE_BYTES]
    found = [pieces.nothing_at(address, most) for address in addresses]
    assert found == [0, 0, most, 2 * PAGE_BYTES, 0, most]
    assert Pieces(index, index.runs[:0]).nothing_at(0, most) == most


def test_large_pieces_come_in_chunks() -> None:
    """The one that somebody waits for first, then what follows."""
    index = Index.build(
        np.array([(1, 4, 5, 0, 200, 0)], RUN), np.array([(0, RAW, 0, 9, 200, 0)], FRAME)
    )
    chunks = Pieces(index, index.runs).chunks(0, near=150 * PAGE_BYTES)
    assert [(address // PAGE_BYTES, size // PAGE_BYTES) for address, _at, size in chunks] == [
        (128, 64),
        (192, 8),
        (0, 64),
        (64, 64),
    ]
    assert all(address == at for address, at, _size in chunks)


def test_several_processes() -> None:
    """Each has its own."""
    rows = [(1, 4, 5, 0, 3, 0), (1, 4, 9, 0, 3, 3)]
    index = Index.build(np.array(rows, RUN), np.array([(0, RAW, 0, 9, 6, 0)], FRAME))
    found = Pieces.by_process(index, index.runs)
    assert {pid: one.chunks(0) for pid, one in found.items()} == {
        5: [(0, 0, 3 * PAGE_BYTES)],
        9: [(0, 3 * PAGE_BYTES, 3 * PAGE_BYTES)],
    }
