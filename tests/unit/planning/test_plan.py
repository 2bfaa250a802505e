"""Plans: cheap where they can be, safe where they must be, plain where nothing helps."""

from __future__ import annotations

import math
from typing import Literal

import attrs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snaplib.forecasting import SURE, CompressionSample, Forecast, Models, forecast_with
from snaplib.observe import PageAges
from snaplib.planning import plan
from snaplib.testing.dumps import HOST, STORE, SimulatedHost, make_profile

SAMPLE = CompressionSample(0.5)


@pytest.fixture(scope="module")
def learned() -> Models:
    return Models.learn(SimulatedHost().records(120), host=HOST, store=STORE)


def forecast(
    models: Models,
    size: float = 1e9,
    window_s: float = 30.0,
    bandwidth: float | None = None,
    age_s: float | None = None,
    **task: float,
) -> Forecast:
    return forecast_with(
        models,
        make_profile(size, **task),
        window_s=window_s,
        bandwidth_bytes_s=bandwidth,
        sample=SAMPLE,
        warm_age_s=age_s,
    )


def test_nothing_is_copied_ahead_where_a_full_dump_fits(learned: Models) -> None:
    made = plan(forecast(learned, 1e9, window_s=30))

    assert made.strategy == "full"
    assert made.next_copy_s is None
    assert made.fits >= SURE
    assert "nothing need be copied ahead" in made.reasons[0]
    assert "a full dump of 999 MB takes 1.2 s" in made.reasons[0]


def test_copies_are_made_where_only_a_delta_fits(learned: Models) -> None:
    """20 GB at 50 MB/s is minutes; 200 MB of it change."""
    made = plan(forecast(learned, 20e9, window_s=30, bandwidth=5e7, dirty_bytes_s=5e6))

    assert made.strategy == "warm"
    assert made.next_copy_s == 0
    assert made.fits < 0.1
    assert made.fits_then >= SURE
    assert "the first, of 20 GB, is due now" in " ".join(made.reasons)


def test_the_next_copy_is_due_when_the_delta_would_no_longer_fit(learned: Models) -> None:
    task = {"dirty_bytes_s": 2e7, "working_set_bytes": 5e9, "watched_s": 600}
    young = plan(forecast(learned, 20e9, window_s=20, bandwidth=5e7, age_s=1, **task))
    old = plan(forecast(learned, 20e9, window_s=20, bandwidth=5e7, age_s=500, **task))

    assert young.strategy == old.strategy == "warm"
    assert young.every_s is not None
    assert young.next_copy_s == pytest.approx(young.every_s - 1)
    assert young.fits >= SURE
    assert old.next_copy_s == 0
    # At the moment when it is due, and until it is done, the copy before still does.
    late = forecast(learned, 20e9, window_s=20, bandwidth=5e7, age_s=young.every_s, **task)
    assert late.best.fits >= SURE


def test_one_copy_is_enough_for_a_task_that_writes_little(learned: Models) -> None:
    task = {"dirty_bytes_s": 1e5, "working_set_bytes": 1e6}
    first = plan(forecast(learned, 20e9, window_s=30, bandwidth=5e7, **task))
    later = plan(forecast(learned, 20e9, window_s=30, bandwidth=5e7, age_s=100, **task))

    assert first.next_copy_s == 0
    assert later.next_copy_s is None or later.next_copy_s > 100
    assert later.fits >= SURE


def test_one_copy_is_enough_where_more_would_not_make_it_likelier(learned: Models) -> None:
    """Six tenths change again and again, soon after any copy: a younger copy misses as much."""
    task = {"dirty_bytes_s": 1e9, "working_set_bytes": 6e8, "watched_s": 600}
    first = forecast(learned, 1e9, window_s=10.5, bandwidth=5e7, **task)
    later = plan(forecast(learned, 1e9, window_s=11.5, bandwidth=5e7, age_s=60, **task))

    assert first.full.fits < SURE
    assert plan(first).next_copy_s == 0
    assert plan(first).fits_then > first.full.fits + 0.01
    assert later.next_copy_s is None or later.next_copy_s > 600


def test_nothing_is_copied_of_a_task_that_changes_all_of_its_memory(learned: Models) -> None:
    task = {"dirty_bytes_s": 5e9, "working_set_bytes": 1e9, "watched_s": 600}
    whole = forecast(learned, 1e9, window_s=10.5, bandwidth=5e7, **task)
    made = plan(whole)

    assert 0.5 < whole.full.fits < SURE
    assert made.strategy == "full"
    assert made.next_copy_s is None
    assert any("copies ahead would not make it likelier" in reason for reason in made.reasons)


def test_what_is_safe_only_with_copies_all_the_time_is_too_dear(learned: Models) -> None:
    """Of copies twice a second the CPUs would have much to do, for what is nearly as likely without."""
    task = {"dirty_bytes_s": 3e8, "working_set_bytes": 9e8, "watched_s": 600}
    whole = forecast(learned, 1e9, window_s=3.2, bandwidth=2e8, **task)
    dear = plan(whole)
    often = plan(attrs.evolve(whole, warm_age_s=30.0))

    assert 0.9 < whole.full.fits < SURE
    assert dear.fits_then < SURE
    assert often.next_copy_s is None or often.next_copy_s > 60


def test_a_first_copy_shows_what_is_not_known(learned: Models) -> None:
    first = plan(forecast(learned, 1e9, window_s=11.5, bandwidth=5e7, basis="faults"))
    later = plan(forecast(learned, 1e9, window_s=11.5, bandwidth=5e7, basis="faults", age_s=30))

    assert first.next_copy_s == 0
    assert any("a first copy shows it" in reason for reason in first.reasons)
    assert later.next_copy_s is None


def growing(models: Models, size: float, age_s: float | None = None) -> Forecast:
    profile = attrs.evolve(make_profile(size, dirty_bytes_s=1e5), growth_bytes_s=3e7)
    return forecast_with(
        models,
        profile,
        window_s=30,
        bandwidth_bytes_s=5e7,
        sample=CompressionSample(1.0),
        warm_age_s=age_s,
    )


def test_the_first_copy_of_a_growing_task_begins_while_a_full_dump_is_safe(learned: Models) -> None:
    """Until it is complete there is nothing else; later it would be too late."""
    small, larger = growing(learned, 2e8), growing(learned, 8e8)

    assert small.full.fits >= SURE
    assert plan(small).strategy == "full"
    assert larger.full.fits >= SURE
    made = plan(larger)
    assert made.strategy == "warm"
    assert made.next_copy_s == 0
    assert "grows by 30 MB/s and will not be safe" in made.reasons[0]
    # One that does not grow needs none.
    assert plan(forecast(learned, 8e8, bandwidth=5e7, dirty_bytes_s=1e5)).strategy == "full"


def test_a_growing_task_that_changes_all_of_its_memory_has_nothing_of_a_copy(
    learned: Models,
) -> None:
    profile = make_profile(8e8, dirty_bytes_s=5e9, working_set_bytes=8e8)
    whole = forecast_with(
        learned,
        attrs.evolve(profile, growth_bytes_s=3e7),
        window_s=30,
        bandwidth_bytes_s=5e7,
        sample=CompressionSample(1.0),
    )

    assert whole.full.fits >= SURE
    assert plan(whole).strategy == "full"


def test_a_copy_of_a_growing_task_is_kept_young(learned: Models) -> None:
    made = plan(growing(learned, 8e8, age_s=5))

    assert made.strategy == "warm"
    assert made.fits >= SURE


def test_a_task_that_dirties_faster_than_any_store(learned: Models) -> None:
    task = {"dirty_bytes_s": 5e9, "working_set_bytes": 50e9}
    whole = forecast(learned, 60e9, window_s=100, bandwidth=1e8, **task)
    made = plan(whole)

    assert made.strategy == "timer"
    assert made.fits < 0.01
    # What it has done since it began is what would be lost.
    assert made.every_s is not None
    assert made.next_copy_s == pytest.approx(max(made.every_s - whole.running_s, 0))
    assert plan(attrs.evolve(whole, running_s=math.inf)).next_copy_s == 0
    text = " ".join(made.reasons)
    assert "nothing fits the window of 1 min 40 s" in text
    assert "even copies without a pause" in text
    assert "would do for a full dump" in text


def test_a_store_that_takes_nothing(learned: Models) -> None:
    made = plan(forecast(learned, bandwidth=0))

    assert made.strategy == "give-up"
    assert made.step is None
    assert made.next_copy_s is None
    assert "0 bytes a second" in made.reasons[0]


def test_a_window_of_nothing(learned: Models) -> None:
    made = plan(forecast(learned, window_s=0))

    assert made.strategy == "timer"
    assert made.fits == 0
    assert "a window of 0 s cannot be met" in " ".join(made.reasons)


def test_with_no_experience_it_says_so_and_is_careful() -> None:
    made = plan(forecast(Models.learn([]), 20e9, window_s=120))

    assert made.strategy == "warm"
    assert any("no dump was ever made" in reason for reason in made.reasons)


def test_without_armed_memory_no_copy_is_relied_on(learned: Models) -> None:
    made = plan(forecast(learned, 20e9, window_s=30, bandwidth=5e7, basis="faults"))

    assert made.strategy == "timer"
    assert any("watch it armed" in reason for reason in made.reasons)


def test_a_slow_store_gets_everything_compressed(learned: Models) -> None:
    slow = plan(forecast(learned, 1e9, window_s=120, bandwidth=2e7))
    fast = plan(forecast(learned, 1e9, window_s=120, bandwidth=5e9))

    assert (slow.codec, slow.level) == ("zstd", 3)
    assert (fast.codec, fast.level) == ("auto", -1)
    assert any("the store is what binds" in reason for reason in slow.reasons)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    task=st.tuples(st.floats(0, 1e12), st.floats(0, 1e10), st.floats(0, 1e12)),
    window_s=st.floats(0, 600),
    bandwidth=st.one_of(st.none(), st.floats(0, 1e11)),
    age_s=st.one_of(st.none(), st.floats(0, 1e4)),
    basis=st.sampled_from(["armed", "sampled", "faults"]),
    watched_s=st.integers(0, 200),
)
def test_plans_keep_to_the_window_if_that_can_be_done(
    learned: Models,
    *,
    task: tuple[float, float, float],
    window_s: float,
    bandwidth: float | None,
    age_s: float | None,
    basis: Literal["armed", "sampled", "faults"],
    watched_s: int,
) -> None:
    size, rate, working_set = task
    whole = forecast_with(
        learned,
        make_profile(
            size,
            dirty_bytes_s=rate,
            working_set_bytes=working_set,
            basis=basis,
            watched_s=watched_s,
        ),
        window_s=window_s,
        bandwidth_bytes_s=bandwidth,
        warm_age_s=age_s,
    )
    made = plan(whole)

    assert made.reasons
    assert all(reason.strip() for reason in made.reasons)
    assert 0 <= made.fits <= 1
    assert 0 <= made.fits_then <= 1
    assert made.next_copy_s is None or 0 <= made.next_copy_s < math.inf
    if made.strategy in ("full", "warm") and made.next_copy_s is None:
        assert made.fits_then > 0.5
    if made.strategy == "warm":
        # Nothing is copied for less than what there would be without.
        assert made.fits_then >= min(whole.full.fits, SURE)
    if any(one.duration_s.median <= window_s for one in whole.strategies):
        assert made.duration_s is not None
        assert made.duration_s.median <= window_s * (1 + 1e-9)


def test_a_profile_without_ages_is_planned_for(learned: Models) -> None:
    profile = make_profile(1e9)
    bare = type(profile)(
        **{
            name: getattr(profile, name)
            for name in ("monotonic_s", "wall_s", "interval_s", "duration_s", "pid", "source")
        },
        dirty_basis="faults",
        page_ages=PageAges(0.0, np.empty(0), np.empty(0)),
    )

    assert plan(forecast_with(learned, bare)).strategy == "full"
