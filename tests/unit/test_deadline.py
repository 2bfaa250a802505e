"""A deadline that moves while somebody waits for it."""

from __future__ import annotations

import threading

from snaplib.checkpoint import Deadline


class Clock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_it_counts_down_to_nothing() -> None:
    clock = Clock()
    deadline = Deadline(30.0, clock)
    clock.now_s += 10
    assert deadline.left_s == 20.0
    clock.now_s += 100
    assert deadline.left_s == 0.0
    assert deadline.wait(lambda: False)


def test_it_can_be_moved_both_ways() -> None:
    deadline = Deadline(30.0, Clock())
    deadline.move(5.0)
    assert deadline.left_s == 5.0
    deadline.move(50.0)
    assert deadline.left_s == 50.0
    assert deadline.seconds == 30.0


def test_whoever_waits_is_told_when_it_is_called_off() -> None:
    deadline = Deadline(3600.0)
    passed: list[bool] = []
    waiter = threading.Thread(target=lambda: passed.append(deadline.wait(lambda: False)))
    waiter.start()
    deadline.call_off()
    waiter.join(20)

    assert passed == [True]
    assert deadline.called_off
    assert deadline.left_s == 0.0


def test_whoever_waits_is_told_of_something_else() -> None:
    deadline = Deadline(3600.0)
    left = threading.Event()
    passed: list[bool] = []
    waiter = threading.Thread(target=lambda: passed.append(deadline.wait(left.is_set)))
    waiter.start()
    left.set()
    deadline.wake()
    waiter.join(20)

    assert passed == [False]
