"""How far off forecasts have been, and so how far off the next may be.

Split conformal prediction over normalised logarithmic errors of forecasts that had not seen what they
forecast. Two things are added to the textbook's: with few errors there is no quantile to take, so the
bounds are those of Student's t with a broad prior; and when more or fewer than one in twenty fall outside,
the level moves (adaptive conformal inference, Gibbs and Candès 2021), so that the intervals stay honest on
a host that changes.
"""

from __future__ import annotations

import bisect
import math

import attrs
import numpy as np
import numpy.typing as npt

from snaplib.forecasting.interval import CONFIDENCE, Interval
from snaplib.forecasting.student import t_cdf, t_quantile

__all__ = ["Spread"]

FloatArray = npt.NDArray[np.float64]

#: How many errors of its own size a prior stands for.
_PRIOR_COUNT = 4.0
#: The oldest errors weigh half of this many later ones.
_HALF_LIFE = 200.0
#: From so many errors on the quantiles are theirs.
_ENOUGH = 40
_STEP = 0.01
_LEVEL_BOUNDS = (0.01, 0.10)
#: Nothing is more certain than this: hosts fail in ways that no record tells of.
_MOST = 0.9999
#: What is forecast as this or more does not come about.
_NEVER = 1e11
#: Nothing is done within so many seconds, or bytes.
_AT_ONCE = 1e-6
#: What the tail beyond all errors weighs, in errors.
_TAIL_COUNT = 1.0


@attrs.frozen
class Spread:
    """The distribution of the logarithm of truth / forecast.

    Attributes:
        errors: Normalised errors, ascending; shape (n,), float64.
        weights: How much each counts; shape (n,), sums to 1 unless there are none.
        scale: Their root mean square, prior included.
        freedom: Degrees of freedom of the t distribution.
        centre: Their median, drawn to 0 where they are few.
        bias: What half of all errors are expected to be less than.
        low: Normalised error of the lower bound.
        high: Normalised error of the upper bound.
    """

    errors: FloatArray = attrs.field(eq=attrs.cmp_using(eq=np.array_equal), repr=False)
    weights: FloatArray = attrs.field(eq=attrs.cmp_using(eq=np.array_equal), repr=False)
    scale: float
    freedom: float
    centre: float
    bias: float
    low: float
    high: float

    @classmethod
    def learn(cls, errors: npt.ArrayLike, prior_scale: float) -> Spread:
        """Learn from errors in the order of time.

        Args:
            errors: log(truth / forecast), normalised; shape (n,).
            prior_scale: What is assumed with no error at all.
        """
        observed = np.asarray(errors, np.float64)
        observed = observed[np.isfinite(observed)]
        count = observed.size
        ages = np.arange(count)[::-1]
        weights = 0.5 ** (ages / _HALF_LIFE)
        effective = float(weights.sum())
        bias = 0.0
        if count:
            middle = float(_quantiles(observed, weights, [0.5])[0])
            # The median of few is not to be relied on.
            bias = middle * effective / (effective + _PRIOR_COUNT)
        squares = float((weights * np.minimum(np.abs(observed - bias), 10) ** 2).sum())
        scale = math.sqrt((_PRIOR_COUNT * prior_scale**2 + squares) / (_PRIOR_COUNT + effective))
        freedom = _PRIOR_COUNT + effective
        reach = t_quantile((1 + CONFIDENCE) / 2, freedom) * scale
        low, high = bias - reach, bias + reach
        if count >= _ENOUGH:
            level = _adapted_level(observed)
            # The finite-sample correction of split conformal prediction, on both sides.
            outside = max(level / 2 * (effective + 1) - 1, 0.0) / effective
            low, high = _quantiles(observed, weights, [outside, 1 - outside])
        order = np.argsort(observed)
        found = cls(
            observed[order],
            weights[order] / effective if count else weights,
            scale,
            freedom,
            bias,
            bias,
            min(float(low), bias),
            max(float(high), bias),
        )
        return found._centred()

    def _centred(self) -> Spread:
        """Return it with the bias that has a probability of one half, as `below` tells it."""
        if self.count < _ENOUGH:
            return self
        low, high = float(self.errors[0]) - self.scale, float(self.errors[-1]) + self.scale
        for _ in range(50):
            middle = (low + high) / 2
            if self._cdf(middle) < 0.5:
                low = middle
            else:
                high = middle
        return attrs.evolve(self, bias=high, low=min(self.low, high), high=max(self.high, high))

    @property
    def count(self) -> int:
        """How many errors are behind it."""
        return int(self.errors.size)

    def around(self, forecast: float, normaliser: float = 1.0) -> Interval:
        """Return the interval of what is forecast.

        Args:
            forecast: Not negative.
            normaliser: By how much more than others this one scatters.
        """
        if forecast <= 0 or math.isinf(forecast):
            return Interval.exact(max(forecast, 0.0))
        low, middle, high = (
            forecast * math.exp(min(self.bias + (error - self.bias) * normaliser, 50.0))
            for error in (self.low, self.bias, self.high)
        )
        return Interval(low, middle, high)

    def below(self, forecast: float, limit: float, normaliser: float = 1.0) -> float:
        """Return the probability that the truth is at most a limit.

        Never falls when the limit grows, or when the forecast shrinks.
        """
        if limit < _AT_ONCE or not forecast < _NEVER:
            return 0.0
        if forecast <= 0 or math.isinf(limit):
            return _MOST
        error = self.bias + (math.log(limit / forecast) - self.bias) / normaliser
        return min(max(self._cdf(error), 0.0), _MOST)

    def _cdf(self, error: float) -> float:
        smooth = t_cdf((error - self.centre) / self.scale, self.freedom)
        if self.count < _ENOUGH:
            return smooth
        # Each error is a little hill, narrow where there are many; beyond them all is t's tail.
        width = 0.3 * self.scale * self.count**-0.2
        seen = float(self.weights @ _logistic((error - self.errors) / (width * 0.55)))
        tail = _TAIL_COUNT / (self.count + _TAIL_COUNT)
        return (1 - tail) * seen + tail * smooth


def _logistic(values: FloatArray) -> FloatArray:
    return 0.5 * (1 + np.tanh(values / 2))


def _quantiles(values: FloatArray, weights: FloatArray, probabilities: list[float]) -> FloatArray:
    order = np.argsort(values)
    cumulated = np.cumsum(weights[order])
    at = (cumulated - 0.5 * weights[order]) / cumulated[-1]
    return np.interp(probabilities, at, values[order])


def _adapted_level(observed: FloatArray) -> float:
    """Return which share to leave outside, after walking through the errors as they came."""
    level = target = 1 - CONFIDENCE
    values: list[float] = observed.tolist()
    kept = 4 * _ENOUGH
    past = sorted(values[:_ENOUGH])
    for now in range(_ENOUGH, len(values)):
        last = len(past) - 1
        low, high = past[int(level / 2 * last)], past[-1 - int(level / 2 * last)]
        outside = not low <= values[now] <= high
        level += _STEP * (target - (1.0 if outside else 0.0))
        level = min(max(level, _LEVEL_BOUNDS[0]), _LEVEL_BOUNDS[1])
        bisect.insort(past, values[now])
        if len(past) > kept:
            del past[bisect.bisect_left(past, values[now - kept])]
    return level
