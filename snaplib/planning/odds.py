"""How likely a task is saved with copies made so often, and what they cost: where nothing is safe."""

from __future__ import annotations

import math

import attrs
import numpy as np

from snaplib.forecasting import SURE, Forecast
from snaplib.planning.cadence import quickest_s
from snaplib.planning.growing import outgrown

__all__ = ["MEAN_TIME_S", "Cadence", "pays", "worthwhile"]

#: How often machines are taken away, where nobody knows.
MEAN_TIME_S = 6 * 3600.0
#: Differences of probabilities that are none; where they are guessed; where what changes is not known for long.
_LEAST_GAIN = 0.001
_GUESSED_GAIN = 0.01
#: What all of the CPUs cost, in probability that the task is saved.
_PRICE = 0.25
#: This share of the CPUs is spent for what is safe in any case.
_ALLOWANCE = 0.02
#: How many cadences are looked at.
_CADENCES = 32


@attrs.frozen
class Cadence:
    """Copies that are made again and again.

    Attributes:
        every_s: From the beginning of one to that of the next; infinite if one is enough.
        fits: The probability that the task is saved, for a notice at any time between two copies.
        cost: The share of what the CPUs can compress that copies take.
    """

    every_s: float
    fits: float
    cost: float = 0.0

    @property
    def worth(self) -> float:
        """What is left of the probability once the copies are paid for.

        A task that is lost costs what it has done since it began: without snapshots, as much as a machine does in the
        mean time until it is taken away. Copies cost their share of the CPUs all the time, but of CPUs that nobody
        else wants just then, which makes them cheaper.
        """
        return self.fits - _PRICE * self.cost


def worthwhile(forecast: Forecast) -> Cadence | None:
    """Return the copies that make it likelier that a task is saved, and are worth it; None if none do.

    Of a task without a copy the first is looked at by itself: it is made once, so it may be tried where little is
    known, and whether it is to be replaced is decided when it is there.
    """
    curve, full_fits = forecast.curve, forecast.full.fits
    is_first = forecast.warm_age_s is None
    if curve.lower_bound:
        # A first copy shows what changes.
        return Cadence(math.inf, full_fits) if is_first else None
    found = _cadences(forecast, full_fits)
    best = max(found, key=lambda one: one.worth)
    if not is_first:
        return best if best.worth > full_fits + _LEAST_GAIN else None
    size_bytes = forecast.work.sent_bytes
    first = _PRICE * _share(forecast, size_bytes / MEAN_TIME_S)
    if _likeliest(found) - first > full_fits + _LEAST_GAIN:
        return best
    larger = outgrown(forecast)
    larger_fits = larger.full_fits(0.0)
    if _likeliest(_cadences(larger, larger_fits)) - first > larger_fits + _GUESSED_GAIN:
        return best
    if curve.known_s >= forecast.copy_s(size_bytes):
        return None
    # What changes while a copy is made is not known yet: perhaps no more than has changed until now.
    fits = forecast.delta_fits(float(curve.dirty_bytes[-1]), forecast.window_s)
    return Cadence(math.inf, fits) if fits - first > full_fits + _GUESSED_GAIN else None


def pays(forecast: Forecast, every_s: float) -> bool:
    """Return whether copies that make a task safe are worth what they cost beyond an allowance.

    Args:
        forecast: Of the task.
        every_s: From the beginning of one copy to that of the next.
    """
    cost = _share(forecast, forecast.curve.at(every_s) / every_s)
    if cost <= _ALLOWANCE:
        return True
    full_fits = forecast.full.fits
    others = max(one.worth for one in _cadences(forecast, full_fits))
    return Cadence(every_s, SURE, cost - _ALLOWANCE).worth >= max(others, full_fits)


def _cadences(forecast: Forecast, full_fits: float) -> list[Cadence]:
    """Return how copies fare that follow one another, or come more and more seldom, until there is hardly one."""
    shortest_s = quickest_s(forecast)
    every_s = np.geomspace(shortest_s, max(MEAN_TIME_S, 2 * shortest_s), _CADENCES)
    ages_s = np.append(every_s, every_s[-1] + shortest_s)
    dirty = [forecast.curve.at(age_s) for age_s in ages_s]
    # Whoever has a copy may dump everything all the same.
    fits = np.full(len(dirty), full_fits)
    for at, missing in enumerate(dirty):
        delta_fits = forecast.delta_fits(missing, forecast.window_s)
        if delta_fits <= full_fits:
            # Older ones miss more.
            break
        fits[at] = delta_fits
    summed = np.append(0.0, np.cumsum(np.diff(ages_s) * (fits[1:] + fits[:-1]) / 2))
    found = []
    for time_s, copied in zip(every_s.tolist(), dirty, strict=False):
        # While the next is made the one before is what there is.
        young_s = max(forecast.copy_s(copied), shortest_s)
        ends = np.interp([young_s, young_s + time_s], ages_s, summed)
        cost = _share(forecast, copied / time_s)
        found.append(Cadence(time_s, float(ends[1] - ends[0]) / time_s, cost))
    return found


def _likeliest(found: list[Cadence]) -> float:
    return max(one.fits for one in found)


def _share(forecast: Forecast, copy_bytes_s: float) -> float:
    """Return the share of what the CPUs can compress."""
    return copy_bytes_s / forecast.models.durations.pipeline.codec_bytes_s
