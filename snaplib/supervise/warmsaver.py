"""Copying ahead within what it may cost, and a last step that takes what has changed since."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from snaplib.checkpoint import Deadline
from snaplib.errors import CannotDump, SnaplibError
from snaplib.forecasting import StrategyForecast
from snaplib.kernel.footprint import release_code
from snaplib.kernel.memory import trim_heap
from snaplib.node import resident_bytes
from snaplib.store import PAGE_BYTES, Snapshot
from snaplib.supervise.activity import Activity
from snaplib.supervise.planner import Planner
from snaplib.supervise.savecontext import SaveContext
from snaplib.supervise.saver import Expected, SaverFactory
from snaplib.track import open_tracker
from snaplib.warm import Pace, Round, WarmCopy

__all__ = ["MAX_OVERHEAD_PERCENT", "WarmSaver", "warm_saver"]

#: How much of one CPU copying ahead may take.
MAX_OVERHEAD_PERCENT = 2.0

#: The first round comes soon after the start, when the task is at work; no two rounds come closer than the second.
_FIRST_S = 5.0
_LEAST_PAUSE_S = 10.0
#: No two come closer than this where the window needs them.
_LEAST_PAUSE_NEEDED_S = 1.0
#: While the task hardly writes, its faults are looked at after each such pause, and a round is made this long after the
#: last one at the latest.
_LONGEST_PAUSE_S = 60.0
#: So few faults are hardly any: 4 MiB of small pages, which the last step copies in no time.
_FEW_FAULTS = 1024
#: What the task pays for its first write to a page after each round.
_FAULT_S = 2e-6
#: Where nothing tells which pages change: how long until it is tried again.
_AGAIN_S = 300.0
#: A round takes no longer than this, so that other things are seen to as well; the next goes on with what is left.
_LONGEST_ROUND_S = 20.0
#: For how long what a store refuses is tried again before a round is given up.
_STORE_PATIENCE_S = 60.0
#: As long as there has been one round only: one page of so many is taken to have changed since.
_UNKNOWN = 10
#: Before the task is frozen for good one more round may take this share of the time that is left.
_HURRY_SHARE = 0.2


class WarmSaver:
    """Keeps a copy of the task's memory, and dumps what has changed since.

    Args:
        context: What to save, and where to.
        max_overhead: The share of one CPU that copying may take, 0.02 for 2 percent.
        max_bytes_per_s: How many bytes of memory a second may be copied ahead; None without a limit.
        planner: Says when the window needs a copy sooner than the overhead would allow; without one nothing does.
        clock: Tells the time in seconds.
        cpu_clock: Tells the CPU time that this process has taken.
    """

    def __init__(
        self,
        context: SaveContext,
        *,
        max_overhead: float = MAX_OVERHEAD_PERCENT / 100,
        max_bytes_per_s: float | None = None,
        planner: Planner | None = None,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        self._context = context
        self._share = max_overhead
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._pace = Pace(max_overhead, max_bytes_per_s, clock=clock, cpu_clock=cpu_clock)
        self._planner = planner
        self._warm = WarmCopy(
            context.task,
            context.store,
            key=context.key,
            pace=self._pace,
            open_tracker=planner.open_tracker if planner is not None else open_tracker,
        )
        self._activity = Activity(context.task)
        self._next_s: float | None = clock() + _FIRST_S
        #: Until then a task that hardly writes is left alone.
        self._patient_until_s = 0.0
        self._is_complete = False
        self._last: Round | None = None
        self._copied_at_s = 0.0
        #: Not before this, whatever the window needs.
        self._not_before_s = 0.0
        if planner is not None:
            planner.start()

    def next_copy_s(self) -> float | None:
        """Return in how many seconds the next round is due: by what it may cost, or what the window needs."""
        if self._next_s is not None and self._next_s <= self._clock() < self._patient_until_s:
            self._put_off()
        due_s = None if self._next_s is None else max(0.0, self._next_s - self._clock())
        needed_s = self._needed_s()
        if due_s is None or needed_s is None:
            return needed_s if due_s is None else due_s
        return min(due_s, needed_s)

    def _put_off(self) -> None:
        """Put off a round that would find next to nothing."""
        if self._activity.faults() <= _FEW_FAULTS:
            self._next_s = min(self._clock() + _LEAST_PAUSE_S, self._patient_until_s)

    def _needed_s(self) -> float | None:
        """Return in how many seconds the window needs a round; None if it does not."""
        needed_s = self._planner.due_s() if self._planner is not None else None
        if needed_s is None:
            return None
        return max(needed_s, self._not_before_s - self._clock())

    def copy(self, stop: threading.Event) -> Mapping[str, Any]:
        """Make a round, and a snapshot where one is due."""
        began_s, cpu_began_s = self._clock(), self._cpu_clock()
        needed_s = self._needed_s()
        needed = needed_s is not None and needed_s <= 0
        # Before anything is looked at: what is written meanwhile counts.
        self._activity.mark()
        self._patient_until_s = 0.0
        backend = self._context.store.backend
        # Once there is notice, a store that does not answer is not waited for.
        backend.limit_by(lambda: 0.0 if stop.is_set() else _STORE_PATIENCE_S)
        try:
            # What the window needs may cost what it costs.
            with self._pace.any_cpu_share() if needed else contextlib.nullcontext():
                done = self._warm.copy(stop, most_s=_LONGEST_ROUND_S)
        except CannotDump:
            self._next_s = self._not_before_s = self._clock() + _AGAIN_S
            raise
        except SnaplibError:
            self._next_s = self._not_before_s = self._clock() + _LEAST_PAUSE_S
            raise
        finally:
            backend.limit_by(None)
        owed_s = self._pace.owed_s()
        self._not_before_s = self._clock() + max(_LEAST_PAUSE_NEEDED_S, owed_s)
        if not done.left_pages:
            self._copied_at_s = began_s
            self._patient_until_s = began_s + _LONGEST_PAUSE_S
            if self._planner is not None:
                self._planner.copied(began_s)
        cost_s = self._cpu_clock() - cpu_began_s + done.frozen_s + done.changed_pages * _FAULT_S
        pause_s = max(_LEAST_PAUSE_S, cost_s / self._share - (self._clock() - began_s))
        self._next_s = self._clock() + max(owed_s, 0.0 if done.left_pages else pause_s)
        self._last = done
        is_first = not self._is_complete and not done.left_pages
        self._is_complete = self._is_complete or is_first
        if is_first:
            # From now on little is done, and what was needed to begin with is not.
            gc.collect()
            trim_heap()
            release_code()
        return {
            **_figures(done),
            "first": is_first,
            "needed": needed,
            "reason": self._reason(needed=needed, first=is_first),
        }

    def _reason(self, *, needed: bool, first: bool) -> str:
        """Tell people why a round was made."""
        if needed:
            return "the window needs it"
        cost = f"within {100 * self._share:g} % of one CPU"
        if first:
            return f"so that a notice finds most of the work done, {cost}"
        return f"so that the task stands still for less at a notice, {cost}"

    def snapshot(self, deadline: Deadline) -> Snapshot:
        """Dump what has changed since the last snapshot, and let the task run on."""
        snapshot = self._context.dump(
            deadline, leave_running=True, warm=self._warm, plan=self._expected_delta()
        )
        self._warm.begin_ahead()
        return snapshot

    def hint(self) -> None:
        """Make the next round now."""
        self._next_s, self._patient_until_s = self._clock(), 0.0
        self._context.wake()

    def expect(self) -> Expected:
        """What the last round left, and about as much as changed before it; all before there was a round."""
        last = self._last
        if last is None or not self._warm.ready:
            return Expected(resident_bytes(self._context.task.pid))
        # In the first round everything counts as changed.
        changed = last.changed_pages if last.number > 1 else last.changed_pages // _UNKNOWN
        return Expected((last.left_pages + changed) * PAGE_BYTES)

    def save(self, deadline: Deadline, failures: tuple[SnaplibError, ...]) -> Snapshot:
        """Dump what has changed since the last copy; copy once more first if there is certainly time for it."""
        if (
            self._warm.ready
            and self._warm.begun
            and not failures
            and self._has_time_to_copy(deadline)
        ):
            self._hurry(deadline)
        return self._context.dump(deadline, warm=self._warm, plan=self._expected_delta())

    def _expected_delta(self) -> StrategyForecast | None:
        """Return what the dump is expected to take, for those who compare."""
        if self._planner is None or not self._warm.ready:
            return None
        return self._planner.expect_delta(self._clock() - self._copied_at_s)

    def _has_time_to_copy(self, deadline: Deadline) -> bool:
        if self._planner is None:
            return True
        age_s = self._clock() - self._copied_at_s
        return self._planner.may_copy_once_more(age_s, deadline.left_s)

    def _hurry(self, deadline: Deadline) -> None:
        """Make a last round, so that the task stands still for less.

        It works on meanwhile, and if the window ends early that is lost: no more than was promised.  What the round has
        read and the store not taken yet goes on beside the dump.
        """
        most_s = min(deadline.left_s * _HURRY_SHARE, self._context.promise.left_s())
        if most_s <= 0:
            return
        stop = threading.Event()
        timer = threading.Timer(most_s, stop.set)
        timer.start()
        began_s = self._clock()
        try:
            with self._pace.unbounded():
                if not self._warm.copy(stop, is_last=True).left_pages:
                    self._copied_at_s = began_s
        except SnaplibError:
            # The dump is about to find out for itself.
            return
        finally:
            timer.cancel()

    def close(self) -> None:
        """Let go of the task."""
        if self._planner is not None:
            self._planner.close()
        self._warm.close()


def warm_saver(
    max_overhead_percent: float = MAX_OVERHEAD_PERCENT, max_bytes_per_s: float | None = None
) -> SaverFactory:
    """Return what makes savers that copy ahead.

    Args:
        max_overhead_percent: How much of one CPU copying may take, unless the window needs more.
        max_bytes_per_s: How many bytes of memory a second may be copied ahead, whatever the window needs; None without
            a limit. They are counted before they are compressed.
    """
    return lambda context: WarmSaver(
        context,
        max_overhead=max_overhead_percent / 100,
        max_bytes_per_s=max_bytes_per_s,
        planner=Planner(context),
    )


def _figures(done: Round) -> dict[str, Any]:
    return {
        "round": done.number,
        "changed_bytes": done.changed_pages * PAGE_BYTES,
        "copied_bytes": done.copied_pages * PAGE_BYTES,
        "left_bytes": done.left_pages * PAGE_BYTES,
        "warm_bytes": done.log_pages * PAGE_BYTES,
        "frozen_s": done.frozen_s,
    }
