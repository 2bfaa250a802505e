"""Where memory is that moves and is given up, against a table of pages."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from snaplib.checkpoint.lazypages.layout import Layout

PAGE = 4096
SPACE = 40

ranges = st.tuples(st.integers(0, SPACE - 1), st.integers(1, 8))
changes = st.lists(
    st.one_of(
        st.tuples(st.just("without"), ranges),
        st.tuples(st.just("moved"), ranges, st.integers(0, 100)),
    ),
    max_size=8,
)


def a_layout(pages: set[int]) -> Layout:
    """One range a page, as runs may be cut anywhere."""
    begins = np.array(sorted(pages), np.uint64) * np.uint64(PAGE)
    return Layout.of(begins, begins + np.uint64(PAGE))


@given(st.sets(st.integers(0, SPACE - 1)), changes)
def test_it_says_what_a_table_says(pages: set[int], done: list[tuple[object, ...]]) -> None:
    """Of each page where it is, and of each place what is there."""
    layout, table = a_layout(pages), {page: page for page in pages}
    for change in done:
        begin, count = change[1]  # type: ignore[misc]
        if change[0] == "without":
            layout = layout.without(begin * PAGE, (begin + count) * PAGE)
            table = {a: b for a, b in table.items() if not begin <= b < begin + count}
        else:
            # To where it does not overlap, as mremap wants it.
            to = int(change[2]) + (0 if int(change[2]) + count <= begin else begin + count)  # type: ignore[call-overload]
            layout = layout.moved(begin * PAGE, to * PAGE, count * PAGE)
            table = {a: b for a, b in table.items() if not to <= b < to + count}
            table = {
                a: b + to - begin if begin <= b < begin + count else b for a, b in table.items()
            }
    for page in range(SPACE):
        found = layout.first(page * PAGE, (page + 1) * PAGE)
        assert (found and found[1]) == (table[page] * PAGE if page in table else None)
    there = {now: page for page, now in table.items()}
    for place in range(200):
        origin = layout.origin(place * PAGE + 5)
        assert origin == (there[place] * PAGE + 5 if place in there else None)
    assert bool((layout.begins[1:] >= layout.ends[:-1]).all())


def test_the_first_of_some_memory() -> None:
    """What is asked for may begin before, and end after it."""
    layout = a_layout({2, 3, 4, 8}).moved(3 * PAGE, 20 * PAGE, PAGE)
    assert layout.first(0, 100 * PAGE) == (2 * PAGE, 2 * PAGE, PAGE)
    assert layout.first(3 * PAGE + 7, 100 * PAGE) == (3 * PAGE + 7, 20 * PAGE + 7, PAGE - 7)
    assert layout.first(5 * PAGE, 8 * PAGE) is None
    assert layout.first(9 * PAGE, 10 * PAGE) is None


def test_nothing() -> None:
    """A process that misses nothing."""
    layout = a_layout(set()).without(0, PAGE).moved(0, PAGE, PAGE)
    assert layout.first(0, PAGE) is None
    assert layout.origin(0) is None
