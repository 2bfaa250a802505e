"""Costs that add up: a regression without negative coefficients, drawn to what is known beforehand."""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

__all__ = ["Regression"]

FloatArray = npt.NDArray[np.float64]

#: By how much a cost scatters, relative to itself, and how far off a prior may be: together they say
#: how many observations outweigh it.
_SCATTER = 0.15
_PRIOR_SPREAD = 1.0
#: An observation further off than so many scatters pulls no harder: the host had a hiccup.
_HUBER = 1.5
_ROUNDS = 6
#: No cost is predicted with a smaller scale than this, in seconds.
_FLOOR_S = 1e-3


@attrs.frozen
class Regression:
    """Seconds as a sum of what each feature costs.

    Attributes:
        coefficients: Cost of one unit of each feature; shape (k,), float64, none negative.
        count: How many observations are behind it.
    """

    coefficients: FloatArray = attrs.field(eq=attrs.cmp_using(eq=np.array_equal))
    count: int = 0

    @classmethod
    def fit(
        cls,
        features: FloatArray,
        seconds: FloatArray,
        prior: FloatArray,
        weights: FloatArray | None = None,
    ) -> Regression:
        """Fit costs to observations; errors count relative to the cost itself.

        Args:
            features: Shape (n, k), float64, none negative.
            seconds: What was observed; shape (n,).
            prior: What each unit is expected to cost; shape (k,), all above 0.
            weights: How much each observation counts; shape (n,); 1 by default.
        """
        coefficients = np.asarray(prior, np.float64).copy()
        count = len(seconds)
        if not count:
            return cls(coefficients)
        weights = np.ones(count) if weights is None else weights
        penalty = (_SCATTER / (_PRIOR_SPREAD * prior)) ** 2
        for _ in range(_ROUNDS):
            predicted = np.maximum(features @ coefficients, _FLOOR_S)
            off = np.abs(seconds - predicted) / np.maximum(predicted, seconds)
            robust = np.minimum(1.0, _HUBER * _SCATTER / np.maximum(off, 1e-9))
            # The scale is between both, so that what is predicted far too low has no huge weight.
            scale = np.sqrt(predicted * np.maximum(seconds, _FLOOR_S))
            coefficients = _solve(features, seconds, weights * robust / scale**2, prior, penalty)
        return cls(coefficients, count)

    def predict(self, features: FloatArray) -> FloatArray:
        """Return the cost of features of shape (n, k) or (k,)."""
        return np.asarray(features @ self.coefficients, np.float64)


def _solve(
    features: FloatArray,
    seconds: FloatArray,
    weights: FloatArray,
    prior: FloatArray,
    penalty: FloatArray,
) -> FloatArray:
    """Minimise weighted squares plus the penalty; what would become negative is 0."""
    active = np.ones(len(prior), bool)
    solution = np.zeros(len(prior))
    while active.any():
        chosen = features[:, active]
        weighted = chosen * weights[:, None]
        normal = weighted.T @ chosen + np.diag(penalty[active])
        found = np.linalg.solve(normal, weighted.T @ seconds + penalty[active] * prior[active])
        solution[:] = 0.0
        solution[active] = found
        if (found >= 0).all():
            break
        active &= solution > 0
    return np.maximum(solution, 0.0)
