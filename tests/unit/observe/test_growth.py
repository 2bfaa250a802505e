"""How fast a task grows, by its sizes at a few looks."""

from __future__ import annotations

import pytest

from snaplib.observe.growth import Growth


def growth_of(sizes: list[int]) -> float | None:
    growth = Growth()
    for second, size in enumerate(sizes):
        rate = growth.add(10.0 + second / 2, size)
    return rate


def test_one_look_tells_nothing() -> None:
    assert growth_of([100]) is None


def test_steady_growth_and_shrinking() -> None:
    assert growth_of([100, 110, 120]) == pytest.approx(20)
    assert growth_of([120, 110, 100]) == pytest.approx(-20)


def test_one_sudden_change_is_no_growth() -> None:
    """Such as a child that ended with all its memory."""
    assert growth_of([100, 110, 120, 5, 15, 25]) == pytest.approx(20)


def test_only_the_newest_looks_count() -> None:
    assert growth_of([0, 1000, 2000, 3000, 3000, 3000, 3000, 3000, 3000]) == 0


def test_a_clock_that_stands_still_is_passed_over() -> None:
    growth = Growth()
    growth.add(1.0, 100)

    assert growth.add(1.0, 200) is None
    assert growth.add(2.0, 300) == pytest.approx(100)
