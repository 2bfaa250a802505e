"""The age of pages, against a plain dictionary that remembers when each was written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snaplib.observe import PageAges, agetable
from snaplib.observe.agetable import AgeTable

PAGE = 4096


def runs(pages: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Page numbers as runs of adjacent ones."""
    numbers = np.array(sorted(set(pages)), np.int64)
    heads = np.flatnonzero(np.diff(numbers, prepend=-2) != 1)
    counts = np.diff(np.append(heads, numbers.size))
    return (numbers[heads] * PAGE).astype(np.uint64), counts.astype(np.uint64)


def test_nothing_is_dirty_before_the_first_scan() -> None:
    table = AgeTable(PAGE)
    assert table.ages(1.0).distinct_dirty_bytes(10.0) == 0.0
    table.begin(1.0)
    assert table.ages(2.0).distinct_dirty_bytes(10.0) == 0.0


def test_a_page_counts_once_however_often_it_is_written() -> None:
    table = AgeTable(PAGE)
    table.begin(0.0)
    for second in range(23):
        table.next_epoch(float(second))
        table.write(1, *runs([5, 6, 7]))
    assert table.ages(23.0).distinct_dirty_bytes(23.0) == 3 * PAGE


def test_the_curve_between_scans_is_interpolated() -> None:
    ages = PageAges(5.0, [4.0, 3.0], [100.0, 300.0])
    assert ages.distinct_dirty_bytes(0.0) == 0.0
    assert ages.distinct_dirty_bytes(0.5) == 50.0
    assert ages.distinct_dirty_bytes(1.5) == 200.0
    assert ages.distinct_dirty_bytes(99.0) == 300.0
    edges, classes = ages.histogram()
    assert edges.tolist() == [0.0, 1.0, 2.0]
    assert classes.tolist() == [100.0, 200.0]


def test_ages_cannot_be_changed() -> None:
    ages = PageAges(5.0, [4.0], [100.0])
    with pytest.raises(ValueError, match="read-only"):
        ages.since_s[0] = 2.0


def test_no_more_is_dirty_than_there_is() -> None:
    table = AgeTable(PAGE)
    table.begin(0.0)
    table.next_epoch(0.0)
    table.write(1, *runs(list(range(100))))
    assert table.ages(1.0, at_most_bytes=10 * PAGE).distinct_dirty_bytes(1.0) == 10 * PAGE
    assert table.ages(1.0, scale=8.0).distinct_dirty_bytes(1.0) == 800 * PAGE


def test_two_bytes_a_page() -> None:
    table = AgeTable(PAGE)
    table.begin(0.0)
    table.next_epoch(0.0)
    pages = 1 << 18  # 1 GiB, more than one piece
    table.write(1, np.array([1 << 32], np.uint64), np.array([pages], np.uint64))
    assert table.ages(1.0).distinct_dirty_bytes(1.0) == pages * PAGE
    assert table.memory_bytes <= pages * 2 * 1.6


epochs = st.lists(
    st.dictionaries(
        st.integers(1, 3),
        st.lists(st.integers(0, 2000), min_size=1, max_size=30),
        max_size=3,
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(
    epochs=epochs, unmapped=st.tuples(st.integers(0, 2000), st.integers(0, 500)), fold=st.booleans()
)
def test_equals_a_plain_dictionary(epochs, unmapped, fold) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if fold:
            patch.setattr(agetable, "_LAST_EPOCH", 6)
            patch.setattr(agetable, "_FOLD", 4)
        table, last_written = AgeTable(PAGE), {}
        table.begin(0.0)
        since: dict[int, float] = {}
        for serial, written in enumerate(epochs):
            table.next_epoch(float(serial))
            for pid, pages in written.items():
                table.write(pid, *runs(pages))
                last_written.update(dict.fromkeys(((pid, page) for page in pages), float(serial)))
            since[serial] = float(serial)
        begin, length = unmapped
        vsyscall = (0xFFFFFFFFFF600000, 0xFFFFFFFFFF601000)
        mapped = [(0, begin * PAGE), ((begin + length) * PAGE, 4000 * PAGE), vsyscall]
        table.keep_mapped(1, mapped)
        table.keep_only([1, 2])
        last_written = {
            (pid, page): when
            for (pid, page), when in last_written.items()
            if pid != 3 and not (pid == 1 and begin <= page < begin + length)
        }
        now = float(len(epochs))
        ages = table.ages(now)
    assert np.all(np.diff(ages.distinct_bytes) >= 0)
    for age, distinct in zip(ages.ages_s.tolist(), ages.distinct_bytes.tolist(), strict=True):
        begun = round(now - age)
        assert distinct == PAGE * sum(when >= begun for when in last_written.values())
    # Whatever was folded, everything is in the end.
    assert ages.distinct_bytes[-1] == PAGE * len(last_written)
