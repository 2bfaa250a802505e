"""Waiting for one's turn among the runs of a node."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import attrs

from snaplib.node.plan import Contender, SharedPlan, shared_plan
from snaplib.node.registry import Entry, Registry
from snaplib.node.resident import resident_bytes

__all__ = ["Turn", "Waiting"]

#: Until a dump has been measured: a plain disk.
_BYTES_PER_S = 150e6
#: What a dump takes whatever its size is.
_FIXED_S = 0.4


@attrs.frozen
class Waiting:
    """Why it is not this run's turn.

    Attributes:
        ahead: Who comes before it.
        start_s: In how many seconds its turn is expected; None if there will not be time.
    """

    ahead: tuple[str, ...]
    start_s: float | None


class Turn:
    """One run's turns.

    Args:
        registry: Its place on the node.
        entry: What it tells of itself, while it runs.
        clock: Tells the time in seconds, the same for all processes of the node.
    """

    def __init__(
        self, registry: Registry, entry: Entry, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._registry = registry
        self._entry = entry
        self._clock = clock
        self._lock = -1
        self._grace_end_s = 0.0
        registry.put(entry)

    def noticed(
        self, end_s: float, size_bytes: int, seconds: float | None, *, grace_s: float = 0.0
    ) -> None:
        """Tell the others that this run is to be saved.

        Args:
            end_s: When its window ends.
            size_bytes: What its dump has to send.
            seconds: How long that takes alone, where that is known.
            grace_s: How long those that have not heard of the end yet are reckoned with, if there is not time for all.
        """
        self._grace_end_s = self._clock() + grace_s
        self._put(state="noticed", end_s=end_s, size_bytes=size_bytes, seconds=seconds or 0.0)

    def moved(self, end_s: float) -> None:
        """Tell that the window ends at another time."""
        self._put(end_s=end_s)

    def begin(self) -> Waiting | None:
        """Begin the turn, until `done`; or return why it is not this run's."""
        waiting = self._look()
        if waiting is not None:
            return waiting
        lock = self._registry.take_turn()
        if lock < 0:
            return Waiting(self._dumping(), None)
        self._lock = lock
        # Only now nobody else can begin: somebody may have heard of the end meanwhile who comes first.
        waiting = self._look()
        if waiting is not None:
            self._release()
            return waiting
        seconds = self._seconds(self._entry, self._speed())
        self._put(state="dumping", dump_end_s=self._clock() + seconds)
        return None

    def done(self, size_bytes: int = 0, seconds: float = 0.0) -> None:
        """End the turn.

        Args:
            size_bytes: What the dump has sent; 0 if it failed.
            seconds: How long it took.
        """
        self._registry.measured(size_bytes, seconds)
        if self._entry.state == "dumping":
            self._put(state="noticed")
        self._release()

    def run_on(self) -> None:
        """Tell that this run is not to be saved any more."""
        self._put(state="running", end_s=0.0)

    def leave(self) -> None:
        """Tell that this run is over."""
        self._release()
        self._registry.leave()

    def plan(self) -> SharedPlan:
        """Return the plan, as all runs of the node make it."""
        now_s, speed = self._clock(), self._speed()
        rivals = self._rivals(now_s)

        def planned(entries: list[Entry]) -> SharedPlan:
            return shared_plan([self._contender(one, now_s, speed) for one in entries], now_s)

        if now_s < self._grace_end_s:
            plan = planned(rivals)
            if plan.left_out:
                return plan
        # With time for all it does not matter who is first.
        return planned([one for one in rivals if one.state != "running"])

    def _look(self) -> Waiting | None:
        plan = self.plan()
        name = self._entry.name
        for number, slot in enumerate(plan.slots):
            if slot.name == name:
                if number == 0:
                    return None
                ahead = tuple(one.name for one in plan.slots[:number])
                return Waiting(ahead, max(0.0, slot.start_s - self._clock()))
        if not plan.slots and plan.left_out[:1] == (name,):
            # Nobody fits any more.  It costs nothing to try: the window may be longer than it was said to be.
            return None
        return Waiting(tuple(one.name for one in plan.slots) or plan.left_out[:1], None)

    def _dumping(self) -> tuple[str, ...]:
        return tuple(one.name for one in self._registry.entries() if one.state == "dumping")

    def _rivals(self, now_s: float) -> list[Entry]:
        """Return those that are to be saved, and those that may be about to hear of it."""
        # Itself in any case: its file may be missing where the runtime folder is full.
        found = [self._entry]
        for one in self._registry.entries():
            if one.name == self._entry.name:
                continue
            if one.state == "running":
                size_bytes = one.size_bytes or resident_bytes(one.pid)
                found.append(attrs.evolve(one, end_s=self._entry.end_s, size_bytes=size_bytes))
            elif one.end_s > now_s:
                found.append(one)
        return found

    def _contender(self, one: Entry, now_s: float, speed: float) -> Contender:
        dumping = one.state == "dumping"
        seconds = self._seconds(one, speed)
        return Contender(
            name=one.name,
            seconds=max(0.0, one.dump_end_s - now_s) if dumping else seconds,
            value_s=max(0.0, now_s - one.began_s),
            end_s=one.end_s,
            priority=one.priority,
            dumping=dumping,
        )

    def _speed(self) -> float:
        return self._registry.bytes_per_s or _BYTES_PER_S

    @staticmethod
    def _seconds(one: Entry, speed: float) -> float:
        return one.seconds or _FIXED_S + one.size_bytes / speed

    def _put(self, **changes: Any) -> None:
        self._entry = attrs.evolve(self._entry, **changes)
        self._registry.put(self._entry)

    def _release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
