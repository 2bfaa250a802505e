"""Student's t against tables."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaplib.forecasting.student import t_cdf, t_quantile

#: Probability, degrees of freedom, quantile (Abramowitz and Stegun, table 26.10).
TABLE = [
    (0.975, 1, 12.706),
    (0.975, 4, 2.776),
    (0.975, 10, 2.228),
    (0.975, 120, 1.980),
    (0.9995, 4, 8.610),
    (0.95, 30, 1.697),
]


@pytest.mark.parametrize(("probability", "freedom", "value"), TABLE)
def test_quantiles_are_those_of_the_table(probability: float, freedom: float, value: float) -> None:
    assert t_quantile(probability, freedom) == pytest.approx(value, abs=1e-3)
    assert t_quantile(1 - probability, freedom) == pytest.approx(-value, abs=1e-3)
    assert t_cdf(value, freedom) == pytest.approx(probability, abs=1e-4)


def test_the_ends() -> None:
    assert t_cdf(math.inf, 3) == 1
    assert t_cdf(-math.inf, 3) == 0
    assert t_cdf(0, 3) == 0.5
    with pytest.raises(ValueError, match="no probability"):
        t_quantile(1, 3)


@given(st.floats(-50, 50), st.floats(0, 10), st.floats(1, 500))
def test_it_never_falls(value: float, step: float, freedom: float) -> None:
    assert t_cdf(value, freedom) <= t_cdf(value + step, freedom) + 1e-12
