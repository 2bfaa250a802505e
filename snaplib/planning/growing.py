"""What a task that grows has become by the time that a first copy of it is complete."""

from __future__ import annotations

import attrs

from snaplib.forecasting import SURE, Forecast

__all__ = ["is_late_soon", "outgrown"]

#: How much longer a copy may take than expected, and when the plan is looked at again at the latest.
_COPY_MARGIN = 1.5
_NEXT_LOOK_S = 6.0


def is_late_soon(forecast: Forecast) -> bool:
    """Return whether a full dump will not be safe until a copy that is begun later is complete, but a copy would help.

    Until a first copy is complete a full dump is all there is. No growth is believed to go on for longer than it has
    been seen.
    """
    curve, growth_bytes_s = forecast.curve, forecast.growth_bytes_s
    takes_s = forecast.copy_s(forecast.work.sent_bytes) * _COPY_MARGIN + _NEXT_LOOK_S
    seen_s = min(takes_s, curve.known_s)
    full_fits = forecast.full_fits(seen_s) if growth_bytes_s > 0 else SURE
    if full_fits >= SURE:
        return False
    # What it grows by is missing in a copy, and so is what it writes again of what there was: a task that changes all
    # of its memory has nothing of one.
    back_s = min(seen_s, curve.limit_bytes / 2 / growth_bytes_s)
    grown_bytes = growth_bytes_s * back_s
    again_bytes = max(curve.at(back_s) - grown_bytes, 0.0)
    again = min(again_bytes / (curve.limit_bytes - grown_bytes), 1.0) if curve.limit_bytes else 1.0
    missing = max(curve.at(takes_s), again * curve.limit_bytes + growth_bytes_s * takes_s)
    # It must win back at least half of what is lost.
    return forecast.delta_fits(missing, forecast.window_s) >= (SURE + full_fits) / 2


def outgrown(forecast: Forecast) -> Forecast:
    """Return the forecast with a window that is as much shorter as the task may be larger once a copy is complete.

    What has run for a minute may be twice as large after another; what has run for a day will not.
    """
    takes_s = forecast.copy_s(forecast.work.sent_bytes)
    growth = 1 + min(takes_s / max(forecast.running_s, 1.0), 1.0)
    return attrs.evolve(forecast, window_s=forecast.window_s / growth)
