"""How rarely copies may be made, which bandwidth would do, how hard to compress."""

from __future__ import annotations

import math
from typing import Literal

import attrs

from snaplib.forecasting import SURE, Forecast, StrategyForecast
from snaplib.planning.words import amount

__all__ = [
    "DEFAULT_LEVEL",
    "choose_codec",
    "longest_s",
    "needed_bandwidth",
    "quickest_s",
    "safe_bytes",
]

DEFAULT_LEVEL = -1

_BISECTIONS = 40
#: Levels of the codec and their speed relative to the default's, the strongest first.
_LEVELS = ((3, 0.45), (1, 0.75))


def safe_bytes(forecast: Forecast) -> float:
    """Return how much may be dirty for a last step to be safe; negative if not even nothing is."""
    low, high = 0.0, forecast.curve.limit_bytes
    if forecast.delta_fits(0.0, forecast.window_s) < SURE:
        return -1.0
    if forecast.delta_fits(high, forecast.window_s) >= SURE:
        return high
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if forecast.delta_fits(middle, forecast.window_s) >= SURE:
            low = middle
        else:
            high = middle
    return low


def longest_s(forecast: Forecast, limit_s: float) -> float | None:
    """Return the longest time between copies at which the copy there is never gets older than a limit.

    While a copy is made the one before is what there is.
    """
    if math.isinf(limit_s):
        return limit_s
    low, high = 0.0, limit_s
    shortest_s = quickest_s(forecast)
    if shortest_s + forecast.copy_s(forecast.curve.at(shortest_s)) > limit_s:
        return None
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if middle + forecast.copy_s(forecast.curve.at(middle)) <= limit_s:
            low = middle
        else:
            high = middle
    return max(low, shortest_s)


def quickest_s(forecast: Forecast) -> float:
    """Return the time a copy takes if one follows the other without a pause."""
    takes_s = forecast.copy_s(forecast.curve.limit_bytes)
    for _ in range(8):
        takes_s = forecast.copy_s(forecast.curve.at(takes_s))
    return takes_s


def needed_bandwidth(forecast: Forecast) -> str:
    """Say which bandwidth would do."""
    if forecast.window_s <= 0:
        return "a window of 0 s cannot be met by any store"
    low, high = max(forecast.store_bytes_s, 1.0), 1e12

    def safe(bandwidth_bytes_s: float) -> bool:
        faster = attrs.evolve(forecast, bandwidth_bytes_s=bandwidth_bytes_s)
        models = faster.models
        total_s = models.durations.phases_of(faster.work, bandwidth_bytes_s).total_s
        scatter = models.normaliser_of(faster.work)
        return models.duration.below(total_s, faster.window_s, scatter) >= SURE

    if not safe(high):
        return "no store is fast enough for a full dump in this window: the task or its host takes too long"
    for _ in range(_BISECTIONS):
        middle = math.sqrt(low * high)
        if safe(middle):
            high = middle
        else:
            low = middle
    return (
        f"a store that takes {amount(high)}/s would do for a full dump; this one takes "
        f"{amount(forecast.store_bytes_s)}/s"
    )


def choose_codec(forecast: Forecast, step: StrategyForecast) -> tuple[Literal["auto", "zstd"], int]:
    """Choose how hard to compress: as hard as the codec can keep up with a store that binds."""
    if step.binds != "store":
        return "auto", DEFAULT_LEVEL
    pipeline = forecast.models.durations.pipeline
    ratio = forecast.work.ratio
    ratio = forecast.models.durations.ratio if ratio is None else ratio
    wanted = forecast.store_bytes_s / max(ratio, 0.02)
    for level, speed in _LEVELS:
        # Twice what is needed: compressing must never become what binds.
        if pipeline.codec_bytes_s * speed >= 2 * wanted:
            return "zstd", level
    return "auto", DEFAULT_LEVEL
