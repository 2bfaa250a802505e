"""Which way to save a task, when to copy ahead, and why; and how that would have gone for recorded tasks."""

from __future__ import annotations

from snaplib.planning.cadence import DEFAULT_LEVEL
from snaplib.planning.choice import plan
from snaplib.planning.record import Plan
from snaplib.planning.recorded import Recorded
from snaplib.planning.replay import POLICIES, TIMERS_S, Outcome, replay, timer_as_safe
from snaplib.planning.simulator import Course, Step, at_once, like_phaul

__all__ = [
    "DEFAULT_LEVEL",
    "POLICIES",
    "TIMERS_S",
    "Course",
    "Outcome",
    "Plan",
    "Recorded",
    "Step",
    "at_once",
    "like_phaul",
    "plan",
    "replay",
    "timer_as_safe",
]
