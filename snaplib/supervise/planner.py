"""Asks the plan, while a task runs, when the next copy is due; and says so when it changes its mind."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from snaplib.errors import SnaplibError, TaskEnded
from snaplib.forecasting import (
    SURE,
    CompressionSample,
    Forecast,
    Models,
    StrategyForecast,
)
from snaplib.history import forecast
from snaplib.planning import Plan, plan
from snaplib.supervise.savecontext import SaveContext

if TYPE_CHECKING:
    from snaplib.observe import Profile, Watch
    from snaplib.task import Task
    from snaplib.track import Tracker

__all__ = ["Planner"]

#: Seconds between two looks at the task.
_LOOK_EVERY_S = 5.0
#: How well memory compresses is looked at this often, in looks.
_SAMPLE_EVERY = 120


class Planner:
    """Watches a task beside its copies, and keeps a plan for it.

    Whatever fails here is told once and then does without: the task can be saved without a plan.

    Args:
        context: The task, its store and its window.
        clock: Tells the time in seconds, as profiles do.
    """

    def __init__(
        self, context: SaveContext, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._context = context
        self._clock = clock
        self._lock = threading.Lock()
        self._watch: Watch | None = None
        self._starting: threading.Thread | None = None
        self._profile: Profile | None = None
        self._looks = 0
        self._sample: CompressionSample | None = None
        self._models: Models | None = None
        self._copied_at_s: float | None = None
        self._plan: Plan | None = None
        self._due_at_s: float | None = None

    def start(self) -> None:
        """Begin to watch, in a thread of its own: nobody waits for it."""
        self._starting = threading.Thread(target=self._start, name="snaplib-plan", daemon=True)
        self._starting.start()

    def _start(self) -> None:
        from snaplib.observe import Watch  # noqa: PLC0415  late: the task is not to wait for it

        # What the copies' scans see is told to it; without eBPF, because it must cost next to nothing.
        watch = Watch(
            self._context.task, _LOOK_EVERY_S, arm="none", source="proc", on_profile=self._look
        )
        try:
            watch.start()
        except TaskEnded:
            return
        except (SnaplibError, OSError) as error:
            self._context.tell("plan_failed", reason=str(error))
            return
        self._watch = watch

    def close(self) -> None:
        """Stop watching."""
        if self._starting is not None:
            self._starting.join()
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def open_tracker(self, task: Task) -> Tracker:
        """Return a tracker for copies, whose scans the plan learns of."""
        from snaplib.track import open_tracker  # noqa: PLC0415  with the first copy only

        return _Told(open_tracker(task), self._scanned)

    def copied(self, began_s: float) -> None:
        """Hear that a copy is complete that was begun at a time."""
        with self._lock:
            self._copied_at_s = began_s
            # Until the next look nothing is due again.
            self._due_at_s = None

    def due_s(self) -> float | None:
        """Return in how many seconds a copy is due for the sake of the window; None if none is."""
        with self._lock:
            due_at_s = self._due_at_s
        return None if due_at_s is None else max(due_at_s - self._clock(), 0.0)

    @property
    def plan(self) -> Plan | None:
        """The newest plan."""
        return self._plan

    def expect_delta(self, age_s: float) -> StrategyForecast | None:
        """Return what is expected of a dump of what has changed since a copy of that age."""
        if self._profile is None:
            return None
        # With what was known at the last look: a dump does not wait until all is learned anew.
        made = self._forecast(self._profile, age_s, self._models)
        return next(step for step in made.strategies if step.name == "delta")

    def may_copy_once_more(self, age_s: float, left_s: float) -> bool:
        """Return whether a copy and then the dump of the rest fit what is left of the window, for sure.

        They move at least what a dump at once moves, and only let the task stand still for less.

        Args:
            age_s: How old the copy is that there is.
            left_s: What is left.
        """
        if self._profile is None:
            return False
        made = self._forecast(self._profile, age_s, self._models, left_s)
        once = next(step for step in made.strategies if step.copies == 1)
        return once.fits >= SURE

    def _scanned(self, scan: Any) -> None:
        watch = self._watch
        if watch is not None:
            # A scan that the watch cannot make sense of is no reason not to copy.
            with contextlib.suppress(SnaplibError, ValueError):
                watch.feed(scan)

    def _look(self, profile: Profile) -> None:
        with self._lock:
            copied_at_s = self._copied_at_s
        try:
            if self._looks % _SAMPLE_EVERY == 1:
                self._sample = self._compressibility()
            self._looks += 1
            age_s = None if copied_at_s is None else profile.monotonic_s - copied_at_s
            made = self._forecast(profile, age_s)
            self._models = made.models
            chosen = plan(made)
        except (SnaplibError, OSError) as error:
            if self._plan is None and not isinstance(error, TaskEnded):
                self._context.tell("plan_failed", reason=str(error))
            return
        self._profile = profile
        before, self._plan = self._plan, chosen
        # Where the window is too short for anything, only whole snapshots are of use.
        self._context.promise.plan(chosen.every_s if chosen.strategy == "timer" else None)
        with self._lock:
            # A copy that was finished meanwhile is not in this plan.
            if copied_at_s == self._copied_at_s and chosen.next_copy_s is not None:
                self._due_at_s = profile.monotonic_s + chosen.next_copy_s
            else:
                self._due_at_s = None
        if before is None or before.strategy != chosen.strategy:
            self._tell(made, chosen)
        if chosen.next_copy_s is not None:
            self._context.wake()

    def _forecast(
        self,
        profile: Profile,
        age_s: float | None,
        models: Models | None = None,
        window_s: float | None = None,
    ) -> Forecast:
        return forecast(
            profile,
            store=self._context.store,
            window_s=self._context.window_s if window_s is None else window_s,
            sample=self._sample,
            warm_age_s=age_s,
            models=models,
        )

    def _tell(self, made: Forecast, chosen: Plan) -> None:
        self._context.tell(
            "plan",
            strategy=chosen.strategy,
            fits=chosen.fits,
            fits_then=chosen.fits_then,
            next_copy_s=chosen.next_copy_s,
            reasons=list(chosen.reasons),
            size_bytes=made.best.size_bytes.median,
            duration_s=made.best.duration_s.median,
        )

    def _compressibility(self) -> CompressionSample | None:
        from snaplib.checkpoint.compressibility import sample_compression  # noqa: PLC0415

        return sample_compression(self._context.task)


class _Told:
    """A tracker that passes its scans on."""

    def __init__(self, tracker: Tracker, told: Callable[[Any], None]) -> None:
        self._tracker = tracker
        self._told = told

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tracker, name)

    def scan(self, *arguments: Any, **options: Any) -> Any:
        found = self._tracker.scan(*arguments, **options)
        # A look that arms nothing anew reports the same pages again.
        if not arguments and options.get("rearm", True):
            self._told(found)
        return found
