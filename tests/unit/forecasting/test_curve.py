"""The dirty curve: read, extrapolated, turned around."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from snaplib.forecasting import DirtyCurve
from snaplib.observe import PageAges


def curve(dirty: list[float], limit: float = 1e9, **options: float) -> DirtyCurve:
    times = np.arange(1.0, len(dirty) + 1)
    return DirtyCurve.from_ages(PageAges(100.0, 100.0 - times, np.array(dirty)), limit, **options)


def test_it_goes_through_what_was_seen() -> None:
    seen = curve([10, 18, 24, 28])

    assert [seen.at(t) for t in (0, 1, 2, 2.5, 4)] == [0, 10, 18, 21, 28]


def test_behind_what_was_seen_it_grows_on() -> None:
    seen = curve([10, 20, 30, 40])

    assert seen.at(10) == pytest.approx(100)
    assert seen.at(1e9) == 1e9


def test_it_never_is_more_than_there_is() -> None:
    assert curve([10, 20, 30, 40], limit=25).at(4) == 25


def test_what_is_not_tracked_is_always_dirty() -> None:
    assert curve([10, 20], floor_bytes=15.0).at(1) == 15


def test_nothing_seen_is_nothing_known() -> None:
    empty = DirtyCurve.from_ages(PageAges(), 1e9)

    assert empty.at(5) == 0
    assert empty.known_s == 0


def test_ages_of_a_clock_that_was_set_back_are_left_out() -> None:
    ages = PageAges(100.0, np.array([99.0, 101.0, np.nan, 96.0]), np.array([5.0, 7.0, 9.0, 20.0]))
    seen = DirtyCurve.from_ages(ages, 1e9)

    assert seen.known_s == 4
    assert (seen.at(1), seen.at(4)) == (5, 20)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dirty", [[5.0, 5.0, 20.0], [5.0, 7.0, 20.0], [5.0, 5.0, 5.0]])
def test_several_ages_of_one_time_are_one(dirty: list[float]) -> None:
    """As where a machine is so slow that nothing was written from one look to the next."""
    seen = DirtyCurve.from_ages(PageAges(100.0, np.array([98.0, 98.0, 90.0]), np.array(dirty)), 1e9)

    assert (seen.at(2), seen.at(10)) == (dirty[1], dirty[2])
    assert np.isfinite(seen.dirty_bytes).all()
    assert np.isfinite([seen.at(t) for t in (0.1, 1, 5, 20)]).all()


def test_looks_far_apart_do_not_hide_what_is_written_again_and_again() -> None:
    """A working set that is all dirty within a second, looked at each ten seconds."""
    ages = PageAges(100.0, np.array([90.0, 80.0]), np.array([50e6, 51e6]))
    steady = PageAges(100.0, np.array([90.0, 80.0]), np.array([50e6, 100e6]))

    assert DirtyCurve.from_ages(ages, 1e9).at(1.0) > 25e6
    assert DirtyCurve.from_ages(steady, 1e9).at(1.0) == pytest.approx(5e6, rel=0.1)


@given(
    arrays(np.int64, st.integers(1, 30), elements=st.integers(0, 10**9)),
    st.floats(1, 1e9),
    st.floats(0, 100),
    st.floats(0, 100),
)
def test_it_never_falls_and_its_inverse_is_one(
    gains: np.ndarray, limit: float, early: float, later: float
) -> None:
    seen = curve(list(np.cumsum(gains)), limit)

    assert seen.at(early) <= seen.at(early + later) + 1e-6
    until = seen.latest(seen.at(early))
    assert until >= early * (1 - 1e-9) - 1e-6
    if np.isfinite(until):
        assert seen.at(until) <= seen.at(early) * (1 + 1e-6) + 1e-3
