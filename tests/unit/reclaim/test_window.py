"""The window that several sources of notices leave."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from snaplib.reclaim import Window


class Clock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_it_runs_out() -> None:
    clock = Clock()
    window = Window("aws", 120.0, clock)
    clock.now_s += 100
    assert window.left_s == 20.0
    clock.now_s += 100
    assert window.left_s == 0.0


def test_a_later_notice_can_only_make_it_shorter() -> None:
    clock = Clock()
    window = Window("aws", 120.0, clock)
    clock.now_s += 10
    assert not window.notice("aws", 120.0), "the same notice again does not begin a new window"
    assert window.left_s == 110.0
    assert window.notice("gcp", 30.0)
    assert window.left_s == 30.0
    assert not window.notice("file", 60.0)
    assert window.left_s == 30.0


def test_what_is_taken_back_leaves_what_the_others_said() -> None:
    window = Window("aws", 120.0, Clock())
    window.notice("azure", 30.0)
    assert not window.cancel("gcp"), "it had said nothing"
    assert window.cancel("azure")
    assert window.left_s == 120.0
    assert not window.cancelled
    assert window.cancel("aws")
    assert window.cancelled


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 10_000)), min_size=1))
def test_it_is_never_longer_than_anybody_says(notices: list[tuple[str, int]]) -> None:
    clock = Clock()
    window = Window(*notices[0], clock)
    for source, seconds in notices[1:]:
        window.notice(source, seconds)
    assert window.left_s == min(seconds for _source, seconds in notices)
