"""What each strategy would have done for a task that was recorded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import attrs
import numpy as np

from snaplib.forecasting import CompressionSample, Forecast, Models, forecast_with
from snaplib.planning.choice import plan
from snaplib.planning.record import Plan
from snaplib.planning.recorded import Recorded
from snaplib.planning.simulator import Course, at_once, like_phaul

if TYPE_CHECKING:
    from snaplib.observe import Profile

__all__ = ["POLICIES", "TIMERS_S", "Outcome", "replay", "timer_as_safe"]

#: What is compared: the plan; P.Haul's rules from the notice on; copies each 5 minutes, whatever the task
#: does; nothing but a dump at the notice.
POLICIES = ("plan", "phaul", "timer", "full")

_TIMER_S = 300.0
#: Seconds between copies of timers to compare with, the rarest first.
TIMERS_S = (
    600.0,
    300.0,
    200.0,
    140.0,
    100.0,
    70.0,
    50.0,
    35.0,
    25.0,
    18.0,
    12.0,
    8.0,
    5.0,
    3.0,
    2.0,
    1.0,
)
#: Differences of a saved share that are none.
_AS_SAFE = 0.0005


@attrs.frozen
class Outcome:
    """How a policy fared, over notices at every recorded instant.

    Attributes:
        policy: Its name.
        notices: How many notices were tried.
        saved: The share of them after which the task is saved.
        worst: The least probability of all.
        ahead_bytes: Memory copied before the notice, all in all.
        ahead_bytes_s: The same a second of the recording.
        copies: How many copies that were.
        median_done_s: Median time from the notice until all is durable.
        median_frozen_s: Median time that the task stands still.
        reasons: Of the plan for the instant at which a dump at once was least likely to fit.
    """

    policy: str
    notices: int
    saved: float
    worst: float
    ahead_bytes: float
    ahead_bytes_s: float
    copies: int
    median_done_s: float
    median_frozen_s: float
    reasons: tuple[str, ...] = ()


def replay(
    profiles: Iterable[Profile],
    models: Models,
    *,
    window_s: float = 120.0,
    bandwidth_bytes_s: float | None = None,
    sample: CompressionSample | None = None,
    policies: Sequence[str] = POLICIES,
    timer_s: float = _TIMER_S,
) -> list[Outcome]:
    """Play a recorded task through, with a notice at every instant.

    Args:
        profiles: The recording, such as a `snaplib.Trace`.
        models: What dumps take.
        window_s: Seconds from the notice to the end.
        bandwidth_bytes_s: Of the way to the store, if another than was measured.
        sample: How well the task's memory compresses.
        policies: Which of `POLICIES`.
        timer_s: Seconds between two copies of the timer.

    Returns:
        An outcome for each policy, in their order; none for an empty recording.
    """
    recorded = Recorded(profiles)
    if not recorded.profiles:
        return []
    make = _Forecasts(models, window_s, bandwidth_bytes_s, sample)
    return [_play(recorded, policy, make, timer_s) for policy in policies]


def timer_as_safe(
    profiles: Iterable[Profile],
    models: Models,
    saved: float,
    *,
    window_s: float = 120.0,
    bandwidth_bytes_s: float | None = None,
    sample: CompressionSample | None = None,
) -> tuple[float, Outcome] | None:
    """Find the rarest of some timers that saves as much as another policy does.

    What a plan is worth shows against this one: somebody who knew the right timer beforehand.

    Args:
        profiles: The recording.
        models: What dumps take.
        saved: The share that is to be reached.
        window_s: Seconds from the notice to the end.
        bandwidth_bytes_s: Of the way to the store, if another than was measured.
        sample: How well the task's memory compresses.

    Returns:
        The seconds between its copies, and how it fared; None if none of them reaches that.
    """
    recorded = Recorded(profiles)
    if not recorded.profiles:
        return None
    make = _Forecasts(models, window_s, bandwidth_bytes_s, sample)
    for timer_s in TIMERS_S:
        outcome = _play(recorded, "timer", make, timer_s)
        if outcome.saved >= saved - _AS_SAFE:
            return timer_s, outcome
    return None


@attrs.define
class _Forecasts:
    models: Models
    window_s: float
    bandwidth_bytes_s: float | None
    sample: CompressionSample | None

    def __call__(self, profile: Profile, warm_age_s: float | None) -> Forecast:
        return forecast_with(
            self.models,
            profile,
            window_s=self.window_s,
            bandwidth_bytes_s=self.bandwidth_bytes_s,
            sample=self.sample,
            warm_age_s=warm_age_s,
        )


def _play(
    recorded: Recorded,
    policy: str,
    make: Callable[[Profile, float | None], Forecast],
    timer_s: float,
) -> Outcome:
    copied_at: float | None = None  # when the newest finished copy began
    under_way: tuple[float, float] | None = None  # when a copy began, and when it will be finished
    ahead, copies = 0.0, 0
    courses: list[Course] = []
    hardest: tuple[float, Plan] | None = None
    for profile in recorded.profiles:
        now_s = profile.monotonic_s
        if under_way is not None and under_way[1] <= now_s:
            copied_at, under_way = under_way[0], None
        age_s = None if copied_at is None else now_s - copied_at
        forecast = make(profile, age_s)
        missing = None if copied_at is None else recorded.dirty_between(copied_at, now_s)

        def later(since_s: float, until_s: float, now_s: float = now_s) -> float:
            return recorded.dirty_between(now_s + since_s, now_s + until_s)

        if policy == "phaul":
            courses.append(like_phaul(forecast, later))
        else:
            # Whoever has a copy may dump everything all the same.
            ways = [at_once(forecast, None)]
            if missing is not None:
                ways.append(at_once(forecast, missing))
            courses.append(max(ways, key=lambda course: (course.saved, -course.done_s)))
        if under_way is not None:
            continue
        due = False
        if policy == "plan":
            newest = plan(forecast)
            if hardest is None or forecast.full.fits < hardest[0]:
                hardest = forecast.full.fits, newest
            # The next look is at the next profile: what falls due before then is due now.
            due = newest.next_copy_s is not None and newest.next_copy_s <= profile.interval_s / 2
        elif policy == "timer":
            due = copied_at is None or now_s - copied_at >= timer_s
        if due:
            moved = profile.dumpable_bytes if missing is None else missing
            under_way = now_s, now_s + forecast.copy_s(moved)
            ahead += moved
            copies += 1
    saved = [course.saved for course in courses]
    return Outcome(
        policy=policy,
        notices=len(courses),
        saved=float(np.mean(saved)),
        worst=float(np.min(saved)),
        ahead_bytes=ahead,
        ahead_bytes_s=ahead / max(recorded.length_s, math.ulp(1.0)) if recorded.length_s else 0.0,
        copies=copies,
        median_done_s=float(np.median([course.done_s for course in courses])),
        median_frozen_s=float(np.median([course.frozen_s for course in courses])),
        reasons=hardest[1].reasons if hardest is not None else (),
    )
