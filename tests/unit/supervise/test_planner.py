"""What the planner makes of looks at a task: when a copy is due, and what is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from snaplib.forecasting import StrategyForecast
from snaplib.observe import Profile
from snaplib.store import Store
from snaplib.supervise.planner import Planner
from snaplib.supervise.savecontext import SaveContext
from snaplib.testing.dumps import make_profile
from snaplib.testing.stores import MemoryBackend


@pytest.fixture(autouse=True)
def no_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Learn nothing from the dumps of other tests."""
    monkeypatch.setenv("SNAPLIB_STATE_DIR", str(tmp_path))


class Heard:
    """What a planner has told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.woken = 0

    def tell(self, name: str, **details: Any) -> None:
        self.events.append((name, details))

    def wake(self) -> None:
        self.woken += 1


@pytest.fixture
def heard() -> Heard:
    return Heard()


def planner(heard: Heard, window_s: float, now_s: list[float]) -> Planner:
    context = SaveContext(
        task=None,  # type: ignore[arg-type]  nothing is asked of it
        store=Store.over(MemoryBackend(), create=True),
        key="key",
        tcp="established",
        window_s=window_s,
        tell=heard.tell,
        wake=heard.wake,
    )
    made = Planner(context, clock=lambda: now_s[0])
    made._compressibility = lambda: None  # type: ignore[method-assign]
    return made


def at(time_s: float, size: float, basis: str = "armed") -> Profile:
    profile = make_profile(size, basis=basis, dirty_bytes_s=1e6, working_set_bytes=1e8)
    ages = attrs.evolve(
        profile.page_ages,
        at_s=time_s,
        since_s=profile.page_ages.since_s + time_s - profile.page_ages.at_s,
    )
    return attrs.evolve(profile, monotonic_s=time_s, page_ages=ages)


def test_nothing_is_due_where_a_full_dump_fits(heard: Heard) -> None:
    now = [1000.0]
    made = planner(heard, 120.0, now)
    made._look(at(1000.0, 1e8, "faults"))

    assert made.due_s() is None
    assert heard.woken == 0
    ((name, details),) = heard.events
    assert (name, details["strategy"]) == ("plan", "full")
    assert details["reasons"]


def test_a_copy_is_due_where_it_does_not_and_not_again_at_once(heard: Heard) -> None:
    now = [1000.0]
    made = planner(heard, 60.0, now)
    made._look(at(1000.0, 40e9, "faults"))
    assert made.due_s() == 0
    assert heard.woken == 1

    made.copied(1001.0)
    assert made.due_s() is None

    now[0] = 1030.0
    made._look(at(1030.0, 40e9))
    assert made.plan is not None
    assert made.plan.strategy == "warm"
    due_s = made.due_s()
    assert due_s is None or due_s > 0
    if due_s is not None:
        now[0] += due_s / 2
        assert made.due_s() == pytest.approx(due_s / 2)


def test_where_the_window_is_too_short_snapshots_are_promised(heard: Heard) -> None:
    made = planner(heard, 0.05, [1000.0])
    made._look(at(1000.0, 40e9))
    assert made.plan is not None
    assert made.plan.strategy == "timer"
    promise = made._context.promise
    assert promise.most_s == made.plan.every_s
    assert promise.by == "plan"
    # A snapshot of it takes its time.
    assert made.plan.every_s is not None
    assert promise.limit_s >= made.plan.every_s / 3


def test_a_change_of_mind_is_told_once(heard: Heard) -> None:
    now = [1000.0]
    made = planner(heard, 60.0, now)
    for size in (1e8, 1e8, 40e9, 40e9):
        made._look(at(now[0], size))

    assert [details["strategy"] for _, details in heard.events] == ["full", "warm"]
    assert made._context.promise.most_s is None


def test_what_a_dump_of_the_rest_takes_is_expected(heard: Heard) -> None:
    made = planner(heard, 60.0, [1000.0])
    assert made.expect_delta(5.0) is None
    made._look(at(1000.0, 4e9))

    step = made.expect_delta(5.0)
    assert isinstance(step, StrategyForecast)
    assert step.size_bytes.median < 2e7


def test_another_copy_after_the_notice_needs_time_for_itself_and_the_dump(heard: Heard) -> None:
    made = planner(heard, 60.0, [1000.0])
    assert not made.may_copy_once_more(5.0, 60.0), "nothing is known yet"
    made._look(at(1000.0, 4e9))

    assert made.may_copy_once_more(5.0, 60.0)
    assert not made.may_copy_once_more(5.0, 0.2)
