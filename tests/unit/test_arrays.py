"""The same as numpy's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaplib.arrays import distinct, quantile


@given(st.lists(st.integers(0, 2**63 - 1), max_size=40))
def test_distinct(numbers: list[int]) -> None:
    values = np.array([*numbers, *numbers[::2]], np.uint64)
    found = distinct(values)
    assert found.tolist() == np.unique(values).tolist()
    assert found.dtype == values.dtype


@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=40), st.floats(0, 1))
def test_quantile(values: list[float], share: float) -> None:
    assert quantile(values, share) == pytest.approx(np.quantile(values, share), rel=1e-9, abs=1e-3)
