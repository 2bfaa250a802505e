"""Who is saved when: in time, by value, and never worse than everybody for himself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from snaplib.node import Contender, shared_plan

NOW_S = 1000.0


def side_by_side(contenders: list[Contender], now_s: float) -> set[str]:
    """Return who is saved if all dump at once and share the bandwidth equally."""
    left = {one.name: one.seconds for one in contenders}
    ends = {one.name: one.end_s for one in contenders}
    saved: set[str] = set()
    while left:
        least_s = min(left.values())
        now_s += least_s * len(left)
        for name in [name for name, seconds in left.items() if seconds == least_s]:
            saved |= {name} if now_s <= ends[name] else set()
            del left[name]
        left = {name: seconds - least_s for name, seconds in left.items()}
    return saved


def names(plan) -> list[str]:
    return [slot.name for slot in plan.slots]


def contender(name: str, seconds: float, value_s: float, window_s: float = 30.0, **more):
    return Contender(name, seconds, value_s, NOW_S + window_s, **more)


def test_all_that_fit_are_saved_the_densest_first() -> None:
    plan = shared_plan(
        [contender("large", 10, 100), contender("small", 1, 100), contender("young", 5, 1)], NOW_S
    )
    assert names(plan) == ["small", "large", "young"]
    assert plan.left_out == ()
    assert [slot.end_s - NOW_S for slot in plan.slots] == [1, 11, 16]


def test_who_does_not_fit_is_left_out() -> None:
    plan = shared_plan(
        [contender("a", 20, 100), contender("b", 20, 90), contender("c", 9, 30)], NOW_S
    )
    assert set(names(plan)) == {"a", "c"}
    assert plan.left_out == ("b",)


def test_the_best_choice_and_not_the_greedy_one() -> None:
    """The densest one alone is worth less than the two that do not fit beside it."""
    plan = shared_plan(
        [contender("dense", 18, 19), contender("b", 15, 15), contender("c", 15, 15)], NOW_S
    )
    assert set(names(plan)) == {"b", "c"}


def test_priority_comes_before_value() -> None:
    plan = shared_plan([contender("old", 20, 1000), contender("dear", 20, 1, priority=1)], NOW_S)
    assert names(plan) == ["dear"]
    assert plan.left_out == ("old",)


def test_windows_that_end_earlier_are_kept() -> None:
    plan = shared_plan(
        [contender("dense", 5, 1000), contender("urgent", 5, 10, window_s=6.0)], NOW_S
    )
    assert names(plan) == ["urgent", "dense"]


def test_a_dump_that_is_under_way_is_let_end() -> None:
    plan = shared_plan(
        [contender("mine", 5, 1000), contender("theirs", 20, 1, dumping=True)], NOW_S
    )
    assert names(plan) == ["theirs", "mine"]
    assert plan.slots[1].start_s == NOW_S + 20


tasks = st.lists(
    st.builds(
        lambda seconds, value, window, priority: (seconds, value, window, priority),
        st.integers(1, 40),
        st.integers(1, 1000),
        st.sampled_from([10, 30, 60]),
        st.integers(0, 1),
    ),
    min_size=1,
    max_size=14,
)


def built(found) -> list[Contender]:
    return [
        contender(f"t{number}", seconds, value, window, priority=priority)
        for number, (seconds, value, window, priority) in enumerate(found)
    ]


@given(tasks)
def test_everybody_planned_is_in_time_and_nobody_overlaps(found) -> None:
    contenders = {one.name: one for one in built(found)}
    plan = shared_plan(contenders.values(), NOW_S)
    now_s = NOW_S
    for slot in plan.slots:
        assert slot.start_s == now_s
        assert slot.end_s <= contenders[slot.name].end_s
        now_s = slot.end_s
    assert sorted([*names(plan), *plan.left_out]) == sorted(contenders)


@given(tasks, st.randoms())
def test_all_runs_make_the_same_plan(found, chance) -> None:
    contenders = built(found)
    plan = shared_plan(contenders, NOW_S)
    chance.shuffle(contenders)
    assert shared_plan(contenders, NOW_S) == plan


@given(tasks.map(lambda found: [(s, v, w, 0) for s, v, w, _ in found][:9]))
def test_never_worse_than_side_by_side(found) -> None:
    contenders = {one.name: one for one in built(found)}
    plan = shared_plan(contenders.values(), NOW_S)
    alone = side_by_side(list(contenders.values()), NOW_S)
    assert sum(contenders[name].value_s for name in names(plan)) >= sum(
        contenders[name].value_s for name in alone
    )
