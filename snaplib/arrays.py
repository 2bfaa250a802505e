"""What numpy has too, but only with `numpy.ma`: 2 MB, which processes that wait all the time do without."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["distinct", "quantile"]

_Kind = TypeVar("_Kind", bound=np.generic)


def distinct(values: NDArray[_Kind]) -> NDArray[_Kind]:
    """Return the distinct values in ascending order, as `numpy.unique` does.

    Args:
        values: One dimension, none of them NaN.
    """
    ordered = np.sort(values)
    is_first = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    return ordered[is_first]


def quantile(values: ArrayLike, share: float) -> float:
    """Return what a share of the values is below, between two of them in proportion, as `numpy.quantile` does.

    Args:
        values: At least one, none of them NaN.
        share: From 0 to 1; 0.5 for the median.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    at = share * (len(ordered) - 1)
    below = int(at)
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    return float(low + (high - low) * (at - below))
