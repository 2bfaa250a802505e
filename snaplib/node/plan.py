"""Who is saved when, if several tasks are to be saved through one disk and one uplink.

Dumps that run side by side share the bandwidth and all end late; one after the other each has all of it, and those
that are done are done when the machine goes early.  So tasks take turns.  If there is not time for all, what counts is
the work that would be lost: compute-seconds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import attrs

__all__ = ["Contender", "SharedPlan", "Slot", "shared_plan"]

#: Up to so many tasks every choice is looked at; beyond, the densest are taken first.
_EXHAUSTIVE = 9


@attrs.frozen
class Contender:
    """A task that is to be saved.

    Attributes:
        name: Its name.
        seconds: How long its dump takes if it has the node's bandwidth for itself.
        value_s: Compute-seconds that are lost if it is not saved.
        end_s: When its window ends, on any clock.
        priority: Tasks of a higher one are saved before all of a lower one.
        dumping: Whether it is being dumped already: nobody takes that away from it.
    """

    name: str
    seconds: float
    value_s: float
    end_s: float
    priority: int = 0
    dumping: bool = False


@attrs.frozen
class Slot:
    """A task's turn.

    Attributes:
        name: Whose.
        start_s: When it begins.
        end_s: When it is done, if the estimate is right.
    """

    name: str
    start_s: float
    end_s: float


@attrs.frozen
class SharedPlan:
    """Who is saved when.

    Attributes:
        slots: The turns, in their order.
        left_out: Who does not fit, most valuable for its time first; they are tried if there is time after all.
    """

    slots: tuple[Slot, ...]
    left_out: tuple[str, ...]


def shared_plan(contenders: Iterable[Contender], now_s: float) -> SharedPlan:
    """Return who is saved when.

    Everybody who has the same contenders before him gets the same plan.

    Args:
        contenders: All tasks that are to be saved, in any order.
        now_s: The time, on the clock of their ``end_s``.
    """
    ordered = sorted(contenders, key=_rank)
    running = [one for one in ordered if one.dumping]
    start_s = now_s + sum(one.seconds for one in running)
    chosen: list[Contender] = []
    waiting = [one for one in ordered if not one.dumping]
    for _priority, group in itertools.groupby(waiting, key=lambda one: one.priority):
        chosen = _add(chosen, list(group), start_s)
    names = {one.name for one in chosen}
    slots = _slots([*running, *_in_order(chosen, start_s)], now_s)
    return SharedPlan(slots, tuple(one.name for one in waiting if one.name not in names))


def _rank(one: Contender) -> tuple[float, float, str]:
    """Highest priority first, then least time for a compute-second saved."""
    return (-one.priority, max(one.seconds, 1e-9) / max(one.value_s, 1e-9), one.name)


def _add(chosen: list[Contender], group: Sequence[Contender], start_s: float) -> list[Contender]:
    """Return those chosen and the most valuable of another group that fit beside them."""
    if _fits([*chosen, *group], start_s):
        return [*chosen, *group]
    if len(group) > _EXHAUSTIVE:
        for one in group:
            if _fits([*chosen, one], start_s):
                chosen = [*chosen, one]
        return chosen
    best: Sequence[Contender] = ()
    for choice in itertools.product((True, False), repeat=len(group)):
        some = list(itertools.compress(group, choice))
        if _worth(some) > _worth(best) and _fits([*chosen, *some], start_s):
            best = some
    return [*chosen, *best]


def _worth(some: Sequence[Contender]) -> tuple[float, float]:
    """The compute-seconds first; of the same, less time."""
    return (sum(one.value_s for one in some), -sum(one.seconds for one in some))


def _fits(some: Sequence[Contender], start_s: float) -> bool:
    """Whether all are done in time if they are taken in the order of their windows' ends, the best there is."""
    for one in sorted(some, key=lambda one: one.end_s):
        start_s += one.seconds
        if start_s > one.end_s:
            return False
    return True


def _in_order(chosen: Sequence[Contender], start_s: float) -> list[Contender]:
    """The best first, in case the estimates are wrong; if that is too late for some, by the windows' ends."""
    ranked = sorted(chosen, key=_rank)
    in_time = all(
        slot.end_s <= one.end_s for slot, one in zip(_slots(ranked, start_s), ranked, strict=True)
    )
    return ranked if in_time else sorted(chosen, key=lambda one: (one.end_s, _rank(one)))


def _slots(ordered: Sequence[Contender], start_s: float) -> tuple[Slot, ...]:
    slots = []
    for one in ordered:
        slots.append(Slot(one.name, start_s, start_s + one.seconds))
        start_s += one.seconds
    return tuple(slots)
