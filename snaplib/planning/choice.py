"""Which way to save a task, when to copy ahead, and why."""

from __future__ import annotations

import math

import attrs

from snaplib.arguments import shown
from snaplib.errors import WrongType
from snaplib.forecasting import SURE, Forecast, Interval, StrategyForecast
from snaplib.planning.cadence import (
    choose_codec,
    longest_s,
    needed_bandwidth,
    quickest_s,
    safe_bytes,
)
from snaplib.planning.growing import is_late_soon
from snaplib.planning.odds import MEAN_TIME_S, Cadence, pays, worthwhile
from snaplib.planning.record import Plan, make_plan
from snaplib.planning.words import amount, percent, seconds

__all__ = ["plan"]

#: Below this probability the window is not counted on: what was saved before is what there will be.
_HOPE = 0.5
#: A dump that would take longer than this is as good as none.
_ENDLESS_S = 24 * 3600.0
#: No timer is shorter than this, or than ten times what a snapshot takes.
_SHORTEST_TIMER_S = 60.0


def plan(forecast: Forecast) -> Plan:
    """Choose how to save a task.

    The cheapest way is taken of those that fit the window with a probability of at least 0.999: nothing
    ahead if a full dump fits, else copies as rarely as is safe. Where none does, or only one that costs more than it is
    worth, it is the copies whose gain in probability is most worth what they cost; there may be none.

    Args:
        forecast: What each strategy would take.

    Raises:
        WrongType: It is no forecast.
    """
    if not isinstance(forecast, Forecast):
        raise WrongType(
            f"forecast is {shown(forecast)}, and must be a snaplib.Forecast",
            hint="make it with snaplib.forecast(profile)",
        )
    best = forecast.best
    codec, level = choose_codec(forecast, best)
    made = _hopeless(forecast) or _full(forecast) or _warm(forecast) or _unsafe(forecast)
    return attrs.evolve(
        made,
        codec=codec,
        level=level,
        reasons=(*made.reasons, *_about_codec(forecast, best, codec, level), *forecast.notes),
    )


def _hopeless(forecast: Forecast) -> Plan | None:
    """Nothing can be saved at all."""
    if forecast.store_bytes_s <= 0:
        reason = (
            "the store takes 0 bytes a second: nothing can be saved; look at the way to the store"
        )
    elif forecast.best.duration_s.median > max(_ENDLESS_S, forecast.window_s):
        reason = (
            f"a full dump of {amount(forecast.full.size_bytes.median)} would take more than a day at "
            f"{amount(forecast.store_bytes_s)}/s: nothing can be saved; use a faster store"
        )
    else:
        return None
    return make_plan(forecast, "give-up", [reason], step=None, fits=0.0, fits_then=0.0)


def _full(forecast: Forecast) -> Plan | None:
    full = forecast.full
    if full.fits < SURE or (is_late_soon(forecast) and _every_s(forecast) is not None):
        return None
    step = forecast.best
    reason = (
        f"{_what(full)} takes {_interval(full.duration_s)} and fits the window of "
        f"{seconds(forecast.window_s)} with a probability of {percent(full.fits)}: nothing need be copied ahead"
    )
    return make_plan(forecast, "full", [reason], step=step, fits=step.fits, fits_then=full.fits)


def _every_s(forecast: Forecast) -> float | None:
    """Return how rarely copies may be made to be safe; None where that cannot be, or costs more than it is worth."""
    if forecast.curve.lower_bound:
        return None
    every_s = longest_s(forecast, forecast.curve.latest(safe_bytes(forecast)))
    if every_s is None or math.isinf(every_s):
        return every_s
    return every_s if pays(forecast, every_s) else None


def _warm(forecast: Forecast) -> Plan | None:
    """Copies as rarely as is safe."""
    every_s = _every_s(forecast)
    if every_s is None:
        return None
    full = forecast.full
    dirty = forecast.curve.at(every_s)
    reason = (
        f"{_what(full)} takes {_interval(full.duration_s)} and fits the window of "
        f"{seconds(forecast.window_s)} "
    )
    if full.fits < SURE:
        reason += f"only with a probability of {percent(full.fits)}"
    else:
        reason += (
            f"with a probability of {percent(full.fits)}, but it grows by {amount(forecast.growth_bytes_s)}/s "
            "and will not be safe any more when a copy that is begun later is complete"
        )
    reasons = [reason]
    if math.isinf(every_s):
        reasons.append(
            f"after one copy never more than {amount(dirty)} change, which takes "
            f"{seconds(forecast.delta_s(dirty))} and is safe: one copy is enough"
        )
        fits_then = forecast.delta_fits(dirty, forecast.window_s)
    else:
        during = forecast.curve.at(every_s + forecast.copy_s(dirty))
        fits_then = forecast.delta_fits(during, forecast.window_s)
        reasons.append(
            f"a copy made {seconds(every_s)} ago misses {amount(dirty)}; until it is replaced "
            f"{amount(during)}, and the last step takes {seconds(forecast.delta_s(during))}, which fits with a "
            f"probability of {percent(fits_then)}: older copies would not be safe"
        )
    return _with_copies(forecast, reasons, every_s, fits_then)


def _unsafe(forecast: Forecast) -> Plan:
    """Nothing is safe: take what is likeliest, if that is worth counting on."""
    full = forecast.full
    cadence = worthwhile(forecast)
    then = full.fits if cadence is None else cadence.fits
    if max(full.fits, then, forecast.best.fits) < _HOPE:
        return _timer(forecast, cadence)
    reason = (
        f"{_what(full)} takes {_interval(full.duration_s)} and fits the window of {seconds(forecast.window_s)} only "
        f"with a probability of {percent(full.fits)}; no strategy does with {percent(SURE)} at a price worth paying"
    )
    reasons = [reason]
    if cadence is None:
        reasons.append("copies ahead would not make it likelier, or cost more than that is worth")
        step = forecast.best
        then = max(full.fits, step.fits)
        return make_plan(forecast, "full", reasons, step=step, fits=step.fits, fits_then=then)
    reasons.append(_about(forecast, cadence))
    return _with_copies(forecast, reasons, cadence.every_s, then)


def _about(forecast: Forecast, cadence: Cadence) -> str:
    if forecast.curve.lower_bound:
        return "what changes is not known: a first copy shows it"
    if math.isinf(cadence.every_s):
        seen = forecast.curve
        return (
            f"{amount(float(seen.dirty_bytes[-1]))} have changed in the {seconds(seen.known_s)} that were watched; if "
            f"it is no more while a copy is made, what it misses fits with {percent(cadence.fits)}: worth one copy"
        )
    return (
        f"with a copy each {seconds(cadence.every_s)} that is {percent(cadence.fits)} on average, for "
        f"{percent(cadence.cost)} of what the CPUs can compress; more copies would cost more than they are worth"
    )


def _timer(forecast: Forecast, cadence: Cadence | None) -> Plan:
    """The window is not enough for anything: snapshots before there is a notice."""
    full, best = forecast.full, forecast.best
    takes_s = full.duration_s.median
    # Young's formula: the interval at which snapshots and lost work cost the same.
    every_s = max(math.sqrt(2 * MEAN_TIME_S * takes_s), 10 * takes_s, _SHORTEST_TIMER_S)
    reason = (
        f"nothing fits the window of {seconds(forecast.window_s)}: {_what(full)} takes "
        f"{_interval(full.duration_s)}, probability {percent(full.fits)}"
    )
    reasons = [reason]
    if not forecast.curve.lower_bound and forecast.window_s > 0:
        apart_s = quickest_s(forecast)
        dirty = forecast.curve.at(2 * apart_s)
        reasons.append(
            f"even copies without a pause, each {seconds(apart_s)}, leave {amount(dirty)} to be saved at the "
            f"end, {seconds(forecast.delta_s(dirty))}"
        )
    reasons.append(needed_bandwidth(forecast))
    reasons.append(
        f"a snapshot each {seconds(every_s)} while the task runs on loses at most that much work; each stops the "
        f"task for about {seconds(full.frozen_s.median)}"
    )
    age_s = forecast.warm_age_s
    # What a task without a copy has done since it began is what is lost.
    next_s = max(every_s - (forecast.running_s if age_s is None else age_s), 0.0)
    if cadence is not None:
        reasons.append(_about(forecast, cadence))
        next_s = min(next_s, 0.0 if age_s is None else max(cadence.every_s - age_s, 0.0))
    return make_plan(
        forecast,
        "timer",
        reasons,
        step=best if best.fits > 0 else None,
        fits=best.fits,
        fits_then=best.fits,
        next_copy_s=next_s,
        every_s=every_s,
        copy_bytes_s=full.size_bytes.median / every_s,
    )


def _with_copies(forecast: Forecast, reasons: list[str], every_s: float, fits_then: float) -> Plan:
    age_s = forecast.warm_age_s
    moved = 0.0 if math.isinf(every_s) else forecast.curve.at(every_s) / max(every_s, 1e-3)
    next_s: float | None
    if age_s is None:
        next_s = 0.0
        reasons.append(
            f"there is no copy yet: the first, of {amount(forecast.full.size_bytes.median)}, is due now and takes "
            f"{seconds(forecast.copy_s(forecast.full.size_bytes.median))}"
        )
    elif math.isinf(every_s):
        next_s = None
    else:
        next_s = max(every_s - age_s, 0.0)
        reasons.append(
            f"the copy there is is {seconds(age_s)} old; the next is due "
            + (f"in {seconds(next_s)}" if next_s else "now")
            + f"; copies move {amount(moved)}/s over time"
        )
    step = forecast.best
    return make_plan(
        forecast,
        "warm",
        reasons,
        step=step,
        fits=step.fits,
        fits_then=fits_then,
        next_copy_s=next_s,
        every_s=None if math.isinf(every_s) else every_s,
        copy_bytes_s=moved,
    )


def _about_codec(
    forecast: Forecast, step: StrategyForecast, codec: str, level: int
) -> tuple[str, ...]:
    if codec != "zstd":
        return ()
    reason = (
        f"the store is what binds ({amount(forecast.store_bytes_s)}/s for {amount(step.stored_bytes.median)}): "
        f"all pages are compressed, at level {level}"
    )
    return (reason,)


def _what(step: StrategyForecast) -> str:
    return f"a full dump of {amount(step.size_bytes.median)}"


def _interval(interval: Interval) -> str:
    return f"{seconds(interval.median)} ({seconds(interval.low)} to {seconds(interval.high)})"
