"""The map from pages to places, against one page by page."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from snaplib.store.places import PLACE_SHIFT, Places, frame_of
from snaplib.store.runs import RunSet

SPREAD = 1 << 48

rows = st.lists(
    st.tuples(
        st.sampled_from([0, SPREAD]),
        st.integers(0, 60),
        st.integers(1, 9),
        st.integers(0, 5),
        st.integers(0, 20),
    ),
    max_size=12,
)
sets = st.lists(
    st.tuples(st.sampled_from([0, SPREAD]), st.integers(0, 70), st.integers(0, 12)), max_size=8
)


def made(drawn):
    """Return the map of some rows, and the same as a dictionary."""
    table = [
        (base + page, count, frame << PLACE_SHIFT | first)
        for base, page, count, frame, first in drawn
    ]
    columns = np.array(table, np.uint64).reshape(-1, 3)
    model = {page + step: place + step for page, count, place in table for step in range(count)}
    return Places.of(columns[:, 0], columns[:, 1], columns[:, 2]), model


def pages_of(places):
    return {
        int(begin) + step: int(place) + step
        for begin, end, place in zip(places.begins, places.ends, places.places, strict=True)
        for step in range(int(end - begin))
    }


def chosen(drawn):
    begins = [base + page for base, page, _ in drawn]
    return RunSet.of(begins, [begin + row[2] for begin, row in zip(begins, drawn, strict=True)])


def is_normal(places):
    return (
        bool((places.begins < places.ends).all())
        and bool((places.ends[:-1] <= places.begins[1:]).all())
        and len(places.begins) == len(places.ends) == len(places.places)
    )


@given(rows)
def test_the_last_row_wins(drawn):
    """Of a page that came twice, the last copy counts."""
    places, model = made(drawn)
    assert is_normal(places)
    assert pages_of(places) == model
    assert places.pages == len(model)
    assert places.covered() == RunSet.from_pages(sorted(model))


@given(rows, sets)
def test_within_and_without_are_the_two_parts(drawn, some):
    """What is cut out and what is left are the whole."""
    places, model = made(drawn)
    pages = chosen(some)
    inside = places.within(pages)
    outside = places.without(pages)
    assert is_normal(inside)
    assert is_normal(outside)
    held = {page for page in model if pages.contains([page])[0]}
    assert pages_of(inside) == {page: model[page] for page in held}
    assert pages_of(outside) == {page: place for page, place in model.items() if page not in held}


@given(rows, rows)
def test_the_newer_lies_over_the_older(older, newer):
    """A page is where its newest copy is."""
    (below, low), (above, high) = made(older), made(newer)
    both = below.under(above)
    assert is_normal(both)
    assert pages_of(both) == low | high


@given(rows, st.lists(st.tuples(st.integers(0, 70), st.integers(0, 12)), max_size=8))
def test_ranges_in_any_order_keep_their_owner(drawn, asked):
    """Each range gets its own runs, in the order in which the ranges were given."""
    places, model = made(drawn)
    low = np.array([page for page, _ in asked], np.uint64)
    high = np.array([page + count for page, count in asked], np.uint64)
    owner, found = places.cut(low, high)
    assert owner.tolist() == sorted(owner.tolist())
    for number, (page, count) in enumerate(asked):
        mine = owner == number
        part = Places(found.begins[mine], found.ends[mine], found.places[mine])
        expected = {at: model[at] for at in range(page, page + count) if at in model}
        assert pages_of(part) == expected


@given(rows)
def test_frames_can_be_renumbered(drawn):
    """Other numbers for the frames, the same pages in them."""
    places, model = made(drawn)
    moved = places.moved(np.array([9, 8, 7, 6, 5, 4]))
    mask = (1 << PLACE_SHIFT) - 1
    assert pages_of(moved) == {
        page: (9 - (place >> PLACE_SHIFT)) << PLACE_SHIFT | (place & mask)
        for page, place in model.items()
    }
    counts = places.pages_of_frames(6)
    assert counts.tolist() == [
        sum(place >> PLACE_SHIFT == frame for place in model.values()) for frame in range(6)
    ]
    assert set(frame_of(places.places).tolist()) == set(np.flatnonzero(counts).tolist())


def test_a_million_scattered_pages_are_quick():
    """A round over a large map needs no loop over pages."""
    every = np.arange(1_000_000, dtype=np.uint64)
    base = Places.of(every * np.uint64(2), np.ones(len(every)), every % np.uint64(1 << 18))
    newer = Places.of(every[::100] * np.uint64(2), np.ones(10_000), every[:10_000])
    both = base.under(newer)
    assert both.pages == base.pages
    assert both.within(newer.covered()).pages == 10_000
