"""Which way to save a task, when to copy ahead, and why."""

from __future__ import annotations

import math
from typing import Literal

import attrs

from snaplib.forecasting import SURE, Forecast, Interval, StrategyForecast
from snaplib.planning.cadence import (
    DEFAULT_LEVEL,
    choose_codec,
    longest_s,
    needed_bandwidth,
    quickest_s,
    safe_bytes,
)
from snaplib.planning.words import amount, percent, seconds

__all__ = ["Plan", "Strategy", "plan"]

Strategy = Literal["full", "warm", "timer", "give-up"]

#: Below this probability the window is not counted on: what was saved before is what there will be.
_HOPE = 0.5
#: A dump that would take longer than this is as good as none.
_ENDLESS_S = 24 * 3600.0
#: How often machines are taken away, where nobody knows: it sets the timer only.
_MEAN_TIME_S = 6 * 3600.0
#: How much longer a copy may take than expected, and when the plan is looked at again at the latest: what a
#: growing task may grow by before its first copy is complete.
_COPY_MARGIN = 1.5
_NEXT_LOOK_S = 6.0
#: No timer is shorter than this, or than ten times what a snapshot takes.
_SHORTEST_TIMER_S = 60.0


@attrs.frozen
class Plan:
    """What to do for a task, and why.

    Attributes:
        strategy: ``full``: one dump when the notice comes. ``warm``: copies ahead, and a dump of what has
            changed since when the notice comes. ``timer``: the window is too short; whole snapshots while
            there is no notice. ``give-up``: no way to save it is known.
        reasons: Sentences, with the figures that they rest on.
        next_copy_s: Seconds from now until the next copy, or snapshot of a timer, is due; None if none is.
        every_s: Between two copies, if the task goes on as it does; None without copies.
        step: What is expected of the last step if the notice came now; None where nothing is to be tried.
        fits: The probability that the task is saved if the notice came now.
        fits_then: The same once the plan is under way.
        window_s: The window that it is made for.
        rounds: Copies after the notice, before the last step: none, for they would move at least what a dump
            at once moves. See `snaplib.forecasting.Forecast.best`.
        codec: ``auto``, or ``zstd`` to compress everything.
        level: The level of the codec.
        copy_bytes_s: What copies move, in bytes a second over time.
    """

    strategy: Strategy
    reasons: tuple[str, ...]
    next_copy_s: float | None
    every_s: float | None
    step: StrategyForecast | None
    fits: float
    fits_then: float
    window_s: float
    rounds: int = 0
    codec: Literal["auto", "zstd"] = "auto"
    level: int = DEFAULT_LEVEL
    copy_bytes_s: float = 0.0

    @property
    def duration_s(self) -> Interval | None:
        """How long the last step takes if the notice came now."""
        return None if self.step is None else self.step.duration_s


def plan(forecast: Forecast) -> Plan:
    """Choose how to save a task.

    The cheapest way is taken of those that fit the window with a probability of at least 0.999: nothing
    ahead if a full dump fits, else copies as rarely as is safe.

    Args:
        forecast: What each strategy would take.
    """
    best = forecast.best
    codec, level = choose_codec(forecast, best)
    made = (
        _hopeless(forecast)
        or _full(forecast)
        or _warm(forecast)
        or _likely(forecast)
        or _timer(forecast)
    )
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
    return _plan(forecast, "give-up", [reason], step=None, fits=0.0, fits_then=0.0)


def _full(forecast: Forecast) -> Plan | None:
    full = forecast.full
    if full.fits < SURE or (_late_soon(forecast) and _every_s(forecast) is not None):
        return None
    step = forecast.best
    reason = (
        f"{_what(full)} takes {_interval(full.duration_s)} and fits the window of "
        f"{seconds(forecast.window_s)} with a probability of {percent(full.fits)}: nothing need be copied ahead"
    )
    return _plan(forecast, "full", [reason], step=step, fits=step.fits, fits_then=full.fits)


def _late_soon(forecast: Forecast) -> bool:
    """Return whether a growing task's full dump will not be safe until a copy that is begun later is complete.

    Until then a full dump is all there is. No growth is believed to go on for longer than it has been seen.
    """
    takes_s = forecast.copy_s(forecast.work.sent_bytes) * _COPY_MARGIN + _NEXT_LOOK_S
    growing_s = min(takes_s, forecast.curve.known_s)
    return forecast.growth_bytes_s > 0 and forecast.full_fits(growing_s) < SURE


def _every_s(forecast: Forecast) -> float | None:
    """Return how rarely copies may be made; None where they are no way."""
    if forecast.curve.lower_bound:
        return None
    return longest_s(forecast, forecast.curve.latest(safe_bytes(forecast)))


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
    return _with_copies(forecast, "warm", reasons, every_s, fits_then)


def _likely(forecast: Forecast) -> Plan | None:
    """Nothing is safe: take what is likeliest, if that is worth counting on."""
    full, curve = forecast.full, forecast.curve
    every_s = quickest_s(forecast)
    dirty = curve.limit_bytes if curve.lower_bound else curve.at(2 * every_s)
    then = forecast.delta_fits(dirty, forecast.window_s)
    if max(full.fits, then, forecast.best.fits) < _HOPE:
        return None
    reasons = [
        f"no strategy fits the window of {seconds(forecast.window_s)} with a probability of {percent(SURE)}",
        f"{_what(full)} takes {_interval(full.duration_s)} and fits with {percent(full.fits)}",
    ]
    if then <= full.fits:
        reasons.append("copies ahead would not make it likelier")
        step = forecast.best
        return _plan(
            forecast,
            "full",
            reasons,
            step=step,
            fits=step.fits,
            fits_then=max(full.fits, step.fits),
        )
    reasons.append(
        f"with copies without a pause, each {seconds(every_s)}, the last step would have {amount(dirty)} and "
        f"fit with {percent(then)}"
    )
    return _with_copies(forecast, "warm", reasons, every_s, then)


def _timer(forecast: Forecast) -> Plan:
    """The window is not enough for anything: snapshots before there is a notice."""
    full, best = forecast.full, forecast.best
    takes_s = full.duration_s.median
    # Young's formula: the interval at which snapshots and lost work cost the same.
    every_s = max(math.sqrt(2 * _MEAN_TIME_S * takes_s), 10 * takes_s, _SHORTEST_TIMER_S)
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
    next_s = 0.0 if age_s is None else max(every_s - age_s, 0.0)
    return _plan(
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


def _with_copies(
    forecast: Forecast, strategy: Strategy, reasons: list[str], every_s: float, fits_then: float
) -> Plan:
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
    return _plan(
        forecast,
        strategy,
        reasons,
        step=step,
        fits=step.fits,
        fits_then=fits_then,
        next_copy_s=next_s,
        every_s=None if math.isinf(every_s) else every_s,
        copy_bytes_s=moved,
    )


def _plan(
    forecast: Forecast,
    strategy: Strategy,
    reasons: list[str],
    *,
    step: StrategyForecast | None,
    fits: float,
    fits_then: float,
    next_copy_s: float | None = None,
    every_s: float | None = None,
    copy_bytes_s: float = 0.0,
) -> Plan:
    return Plan(
        strategy=strategy,
        reasons=tuple(reasons),
        next_copy_s=next_copy_s,
        every_s=every_s,
        step=step,
        fits=fits,
        fits_then=fits_then,
        window_s=forecast.window_s,
        rounds=0 if step is None else step.copies,
        copy_bytes_s=copy_bytes_s,
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
