"""Forecasts of whole tasks."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snaplib.errors import UsageError
from snaplib.forecasting import CompressionSample, Models, forecast_with
from snaplib.testing.dumps import make_profile

sizes = st.floats(1e6, 1e12)
rates = st.floats(0, 1e10)
windows = st.floats(0, 600)
bandwidths = st.floats(1e4, 1e11)


def test_a_full_dump_and_a_delta(learned: Models) -> None:
    forecast = forecast_with(
        learned, make_profile(1e9), warm_age_s=10, sample=CompressionSample(0.5)
    )

    assert [one.name for one in forecast.strategies] == ["full", "delta", "warm", "warm", "warm"]
    full, delta = forecast.strategies[:2]
    assert full.size_bytes.median == pytest.approx(1e9, rel=0.02)
    assert full.duration_s.median == pytest.approx(1.25, rel=0.15)
    assert delta.size_bytes.median == pytest.approx(2e8 * (1 - np.exp(-0.5)), rel=0.1)
    assert delta.duration_s.median < full.duration_s.median
    assert forecast.best is delta
    assert sum(phase.median for phase in full.phases.values()) == pytest.approx(
        full.duration_s.median, rel=0.1
    )


def test_a_growing_task_is_larger_when_it_is_frozen(learned: Models) -> None:
    """By what it grows until then; one that shrinks is not counted on."""
    profile = make_profile(1e9)
    still = forecast_with(learned, profile).full
    growing, shrinking = (
        forecast_with(learned, attrs.evolve(profile, growth_bytes_s=rate)).full
        for rate in (1e9, -1e9)
    )
    start_s = still.phases["start"].median

    assert growing.size_bytes.median / still.size_bytes.median == pytest.approx(
        1 + start_s, rel=0.01
    )
    assert shrinking == still


def test_first_touches_are_no_dirty_rate(learned: Models) -> None:
    """Without armed memory a delta may be anything up to all of it."""
    forecast = forecast_with(learned, make_profile(1e9, basis="faults"), warm_age_s=10)

    delta = forecast.strategies[1]
    assert delta.size_bytes.high == 1e9
    assert delta.size_bytes.low < 2e8
    assert any("first touches" in note for note in forecast.notes)


def test_without_a_sample_the_stored_bytes_may_be_anything(learned: Models) -> None:
    known = forecast_with(learned, make_profile(), sample=CompressionSample(0.3)).full.stored_bytes
    unknown = forecast_with(learned, make_profile()).full.stored_bytes

    assert unknown.width > known.width


def test_a_bandwidth_of_nothing_is_no_crash(learned: Models) -> None:
    forecast = forecast_with(learned, make_profile(), bandwidth_bytes_s=0)

    assert forecast.best.fits == 0
    assert forecast.full.duration_s.median > 1e9


@pytest.mark.parametrize("window_s", [-1, float("nan")])
def test_a_window_that_is_none_is_refused(learned: Models, window_s: float) -> None:
    with pytest.raises(UsageError, match="a window of"):
        forecast_with(learned, make_profile(), window_s=window_s)


def test_a_window_of_nothing_fits_nothing(learned: Models) -> None:
    assert forecast_with(learned, make_profile(), window_s=0).best.fits == 0


def test_a_copy_from_the_future_is_one_made_now(learned: Models) -> None:
    """The clock was set back."""
    assert forecast_with(learned, make_profile(), warm_age_s=-50).warm_age_s == 0


def test_little_experience_is_told(learned: Models) -> None:
    unsure = forecast_with(Models.learn([]), make_profile())
    sure = forecast_with(learned, make_profile())

    assert unsure.full.duration_s.width > 3 * sure.full.duration_s.width
    assert len(unsure.notes) > len(sure.notes)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    tasks=st.tuples(sizes, rates, sizes, st.floats(0, 1)),
    window_s=windows,
    bandwidth=bandwidths,
    factor=st.floats(1, 10),
    warm=st.booleans(),
)
def test_more_window_or_bandwidth_is_never_less_likely(
    learned: Models,
    tasks: tuple[float, float, float, float],
    *,
    window_s: float,
    bandwidth: float,
    factor: float,
    warm: bool,
) -> None:
    size, rate, working_set, ratio = tasks
    profile = make_profile(size, dirty_bytes_s=rate, working_set_bytes=working_set)
    options = {"sample": CompressionSample(ratio), "warm_age_s": 7.0 if warm else None}

    def fits(window_s: float, bandwidth: float) -> list[float]:
        forecast = forecast_with(
            learned, profile, window_s=window_s, bandwidth_bytes_s=bandwidth, **options
        )
        for one in forecast.strategies:
            for interval in (
                one.size_bytes,
                one.stored_bytes,
                one.duration_s,
                one.frozen_s,
                *one.phases.values(),
            ):
                assert interval.low <= interval.median <= interval.high
        return [forecast.best.fits, *(one.fits for one in forecast.strategies)]

    here = fits(window_s, bandwidth)
    assert all(0 <= one <= 1 for one in here)
    longer = fits(window_s * factor, bandwidth)
    faster = fits(window_s, bandwidth * factor)
    assert all(more >= less - 1e-9 for less, more in zip(here, longer, strict=True))
    assert all(more >= less - 1e-9 for less, more in zip(here, faster, strict=True))
