"""Figures in sentences."""

from __future__ import annotations

import math

__all__ = ["amount", "percent", "seconds"]

_MINUTE = 60
_HOUR = 3600
_DAY = 86400


def amount(count_bytes: float) -> str:
    """Return bytes as people say them: ``1.5 GB``."""
    if math.isinf(count_bytes):
        return "any amount"
    for unit in ("B", "kB", "MB"):
        if abs(count_bytes) < 999.5:
            return f"{count_bytes:.3g} {unit}"
        count_bytes /= 1000
    return f"{count_bytes:.3g} GB" if count_bytes < 1000 else f"{count_bytes:.0f} GB"


def seconds(time_s: float) -> str:
    """Return a duration as people say it: ``2.5 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if time_s > 30 * _DAY:
        return "more than a month"
    if time_s < 9.95:
        return f"{time_s:.2g} s" if time_s >= 0.095 else f"{time_s * 1000:.0f} ms"
    whole = round(time_s)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"


def percent(probability: float) -> str:
    """Return a probability as people say it, never rounded up to certainty: ``99.9 %``."""
    if 0 < probability < 0.001:
        return "less than 0.1 %"
    if 0.999 < probability < 1:
        return "more than 99.9 %"
    return f"{math.floor(probability * 1000) / 10:g} %"
