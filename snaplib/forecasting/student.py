"""Student's t distribution: how far a figure may be off when its spread is known from few cases."""

from __future__ import annotations

import functools
import math

__all__ = ["t_cdf", "t_quantile"]

_ITERATIONS = 300
_TINY = 1e-300


def t_cdf(value: float, freedom: float) -> float:
    """Return the probability that a t-distributed variable is at most a value.

    Args:
        value: The value; may be infinite.
        freedom: Degrees of freedom, above 0.
    """
    if math.isinf(value):
        return 1.0 if value > 0 else 0.0
    tail = 0.5 * _beta(freedom / (freedom + value * value), freedom / 2, 0.5)
    return 1.0 - tail if value > 0 else tail


@functools.lru_cache(maxsize=256)
def t_quantile(probability: float, freedom: float) -> float:
    """Return the value below which a t-distributed variable lies with a probability between 0 and 1."""
    if not 0 < probability < 1:
        raise ValueError(f"{probability} is no probability between 0 and 1")
    if probability < 0.5:
        return -t_quantile(1 - probability, freedom)
    low, high = 0.0, 1.0
    while t_cdf(high, freedom) < probability:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        if t_cdf(middle, freedom) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _beta(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function (Abramowitz and Stegun 26.5.8)."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(x, a, b) / a
    return 1 - front * _fraction(1 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    """Evaluate the continued fraction by Lentz's method."""
    c, d = 1.0, 1 / _far_from_zero(1 - (a + b) * x / (a + 1))
    result = d
    for m in range(1, _ITERATIONS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _far_from_zero(1 + term * d)
            c = _far_from_zero(1 + term / c)
            result *= c * d
        if abs(c * d - 1) < 1e-12:
            break
    return result


def _far_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
