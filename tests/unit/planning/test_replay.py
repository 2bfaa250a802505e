"""Recorded tasks played through with each strategy."""

from __future__ import annotations

from pathlib import Path

import attrs
import numpy as np
import pytest

from snaplib.forecasting import CompressionSample, Models, forecast_with
from snaplib.observe import PageAges, Profile, Trace
from snaplib.planning import (
    POLICIES,
    TIMERS_S,
    Recorded,
    at_once,
    like_phaul,
    replay,
    timer_as_safe,
)
from snaplib.testing.dumps import HOST, STORE, SimulatedHost, make_profile

TRACE = Path(__file__).parents[2] / "data" / "align.trace"
SAMPLE = CompressionSample(0.5)


@pytest.fixture(scope="module")
def learned() -> Models:
    return Models.learn(SimulatedHost().records(120), host=HOST, store=STORE)


def recording(seconds: int = 100) -> list[Profile]:
    """A task that writes 1 MB each second, always new memory."""
    profiles = []
    for now in range(1, seconds + 1):
        ages = np.arange(1.0, now + 1)
        profiles.append(
            attrs.evolve(
                make_profile(1e9),
                monotonic_s=1000.0 + now,
                page_ages=PageAges(1000.0 + now, 1000.0 + now - ages, ages * 1e6),
            )
        )
    return profiles


def test_what_was_written_between_two_instants() -> None:
    recorded = Recorded(recording())

    assert recorded.length_s == 99
    assert recorded.dirty_between(1010, 1030) == pytest.approx(20e6)
    assert recorded.dirty_between(1010.5, 1030.5) == pytest.approx(20e6, rel=0.05)
    assert recorded.dirty_between(1090, 1110) == pytest.approx(20e6)
    assert recorded.dirty_between(1200, 1210) == pytest.approx(10e6)


def test_profiles_from_a_clock_that_was_set_back_are_left_out() -> None:
    profiles = recording(10)
    odd = [*profiles[:5], attrs.evolve(profiles[0], monotonic_s=3.0), *profiles[5:]]

    assert len(Recorded(odd).profiles) == 10


def test_an_empty_recording_has_no_outcome(learned: Models) -> None:
    assert replay([], learned) == []


def test_phaul_copies_everything_again_within_the_window(learned: Models) -> None:
    """Which is why it loses where a dump at once would have fitted."""
    forecast = forecast_with(
        learned, make_profile(1e9), window_s=11, bandwidth_bytes_s=5e7, sample=SAMPLE
    )
    once = at_once(forecast, None)
    phaul = like_phaul(forecast, lambda since, until: forecast.curve.at(until - since))

    assert phaul.moved_bytes > once.moved_bytes
    assert phaul.frozen_s < once.frozen_s
    assert phaul.saved < once.saved
    assert [step.kind for step in phaul.steps][-1] == "dump"
    assert len(phaul.steps) <= 9


@pytest.mark.parametrize(("window_s", "bandwidth"), [(120, 1e8), (30, 2e7), (6, 2e7), (2, 5e6)])
def test_the_plan_loses_to_no_baseline_on_an_aligner(
    learned: Models, window_s: float, bandwidth: float
) -> None:
    outcomes = {
        one.policy: one
        for one in replay(
            list(Trace(TRACE))[::4],
            learned,
            window_s=window_s,
            bandwidth_bytes_s=bandwidth,
            sample=SAMPLE,
        )
    }

    assert set(outcomes) == set(POLICIES)
    ours = outcomes["plan"]
    for policy in ("phaul", "timer", "full"):
        # Within what one notice of the recording is worth: until the first copy is done nobody has one.
        assert ours.saved >= outcomes[policy].saved - 2 / ours.notices, policy
    assert ours.reasons


def test_nothing_is_copied_where_a_full_dump_is_safe(learned: Models) -> None:
    profiles = list(Trace(TRACE))[::4]
    outcomes = {one.policy: one for one in replay(profiles, learned, sample=SAMPLE)}

    assert outcomes["plan"].ahead_bytes == 0
    assert outcomes["plan"].worst >= 0.999
    assert outcomes["timer"].ahead_bytes > 0


def test_the_rarest_timer_that_is_as_safe(learned: Models) -> None:
    profiles = recording(60)
    never = timer_as_safe(profiles, learned, 1.01, window_s=10, bandwidth_bytes_s=2e7)
    often = timer_as_safe(profiles, learned, 0.0, window_s=10, bandwidth_bytes_s=2e7)
    (plan,) = replay(
        profiles, learned, window_s=10, bandwidth_bytes_s=2e7, sample=SAMPLE, policies=["plan"]
    )
    found = timer_as_safe(
        profiles, learned, plan.saved, window_s=10, bandwidth_bytes_s=2e7, sample=SAMPLE
    )

    assert never is None
    assert often is not None
    assert often[0] == TIMERS_S[0] == 600
    assert timer_as_safe([], learned, 0.0) is None
    if found is not None:
        assert found[1].saved >= plan.saved - 0.001


def test_a_timer_of_another_period(learned: Models) -> None:
    profiles = recording(60)
    (rare,) = replay(profiles, learned, policies=["timer"])
    (often,) = replay(profiles, learned, policies=["timer"], timer_s=10)

    assert rare.copies == 1
    assert often.copies == 6
    assert often.ahead_bytes > rare.ahead_bytes
