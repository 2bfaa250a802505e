"""What is promised to be lost at most, and when a snapshot is due for it."""

from __future__ import annotations

import math

import pytest

from snaplib.supervise.promise import Promise


class Clock:
    """The time, as the test says."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_nothing_is_promised_by_itself(clock: Clock) -> None:
    promise = Promise(clock=clock)
    assert (promise.most_s, promise.due_s(), promise.left_s()) == (None, None, math.inf)
    assert not promise.is_news()


def test_the_first_is_due_an_interval_after_the_start(clock: Clock) -> None:
    promise = Promise(23.0, clock=clock)
    clock.now_s += 3
    assert (promise.due_s(), promise.left_s(), promise.unsaved_s) == (20.0, 20.0, 3.0)


def test_a_task_that_was_taken_over_is_due_at_once(clock: Clock) -> None:
    """When its last snapshot was made nobody knows."""
    due_s = Promise(23.0, age_s=500.0, clock=clock).due_s()
    assert due_s is not None
    assert due_s <= 0


def test_what_the_task_works_while_a_snapshot_begins_and_ends_counts(clock: Clock) -> None:
    promise = Promise(23.0, clock=clock)
    clock.now_s += 25
    promise.kept(5.0, frozen_s=2.0)
    assert promise.due_s() == 20.0


def test_the_task_works_half_of_the_time_at_least(clock: Clock) -> None:
    promise = Promise(2.0, clock=clock)
    promise.kept(9.0, frozen_s=1.0)
    assert promise.due_s() == 1.0


def test_after_a_failure_the_task_works_twice_as_long_as_it_stood_still(clock: Clock) -> None:
    promise = Promise(60.0, clock=clock)
    clock.now_s += 70
    promise.missed(8.0)
    assert promise.due_s() == 16.0
    assert promise.left_s() == 0.0
    promise.missed(100.0)
    assert promise.due_s() == 60.0
    promise.missed(0.1)
    assert promise.due_s() == 5.0


def test_the_option_comes_before_the_plan(clock: Clock) -> None:
    promise = Promise(60.0, clock=clock)
    promise.plan(600.0)
    assert (promise.most_s, promise.by) == (60.0, "option")


def told(promise: Promise, clock: Clock, pause_s: float, *intervals_s: float | None) -> list:
    """Return what is told of a plan that changes its mind so often."""
    found = []
    for every_s in intervals_s:
        clock.now_s += pause_s
        promise.plan(every_s)
        if promise.is_news():
            found.append(promise.most_s)
    return found


def test_the_plans_interval_is_told_when_it_is_another(clock: Clock) -> None:
    promise = Promise(clock=clock)
    intervals = (None, 600.0, 620.0, 700.0, 900.0, 600.0, None, None)
    assert told(promise, clock, 600.0, *intervals) == [600.0, 900.0, 600.0, None]
    assert promise.by == "plan"


def test_a_plan_that_wavers_is_not_told_again_and_again(clock: Clock) -> None:
    """What is worse is told at once, and what is better when it has lasted."""
    assert told(Promise(clock=clock), clock, 5.0, *[60.0, 80.0] * 50) == [60.0, 80.0]
    assert told(Promise(clock=clock), clock, 5.0, *[60.0, None] * 50) == [60.0]
    growing = [60.0 * 1.02**number for number in range(100)]
    assert len(told(Promise(clock=clock), clock, 5.0, *growing)) <= 10
    lasting = [80.0] + [40.0] * 150
    assert told(Promise(clock=clock), clock, 5.0, *lasting) == [80.0, 40.0]


def test_a_snapshot_may_take_its_time_where_there_are_few(clock: Clock) -> None:
    assert Promise(1.0, clock=clock).limit_s == 120.0
    assert Promise(3600.0, clock=clock).limit_s == 1200.0
