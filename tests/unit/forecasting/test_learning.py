"""What is learned from dumps: costs, and how far off forecasts are."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaplib.forecasting import (
    DumpRecord,
    Interval,
    Models,
    Phases,
    Pipeline,
    Rates,
    Spread,
    Work,
)
from snaplib.forecasting.regression import Regression
from snaplib.testing.dumps import HOST, STORE, SimulatedHost


def _work(processes: int) -> Work:
    return Work(
        processes=processes,
        threads=3 * processes,
        descriptors=20,
        resident_bytes=1e9,
        sent_bytes=1e9,
        ratio=0.5,
    )


def test_without_records_the_prior_is_what_there_is_and_it_is_said() -> None:
    models = Models.learn([], host=HOST, store=STORE)

    assert models.count == 0
    assert "snaplib calibrate" in models.notes[0]
    assert models.duration.around(1.0).width > 1


def test_held_out_dumps_of_new_programs_are_forecast() -> None:
    """Dumps of programs that were never seen: small errors, and intervals that hold."""
    models = Models.learn(SimulatedHost(seed=1).records(150), host=HOST, store=STORE)
    unseen = SimulatedHost(seed=2).records(200)

    errors, inside = [], []
    for record in unseen:
        total_s = models.durations.phases_of(record.work).total_s
        interval = models.duration.around(total_s, models.normaliser_of(record.work))
        errors.append(abs(interval.median / record.phases.total_s - 1))
        inside.append(record.phases.total_s in interval)

    assert np.median(errors) < 0.05
    assert 0.90 <= np.mean(inside) <= 1.0


def test_more_dumps_make_narrower_intervals() -> None:
    records = SimulatedHost(scatter=0.03).records(200)
    widths = [
        Models.learn(records[:count], host=HOST, store=STORE).duration.around(2.0).width
        for count in (0, 5, 30, 200)
    ]

    assert widths == sorted(widths, reverse=True)


def test_a_history_of_another_host_is_left_out_and_that_is_said() -> None:
    models = Models.learn(SimulatedHost().records(50), host="aarch64, 64 CPUs", store=STORE)

    assert models.count == 0
    assert any("50 dumps of other kinds of hosts" in note for note in models.notes)


def test_dumps_to_another_store_tell_of_all_but_the_way() -> None:
    slow = attrs.evolve(SimulatedHost(), memory_bytes_s=1e8)
    models = Models.learn(
        [*slow.records(80, store="s3://far"), *SimulatedHost().records(3)], host=HOST, store=STORE
    )

    assert models.count == 3
    phases = models.durations.phases_of(_work(2))
    assert phases.memory_s < 2  # not the 10 s of the far store
    assert phases.walk_s == pytest.approx(0.13, rel=0.3)


def test_it_follows_a_host_that_became_slower() -> None:
    before = SimulatedHost(seed=1).records(100)
    after = attrs.evolve(SimulatedHost(seed=2), memory_bytes_s=5e8).records(300)
    models = Models.learn([*before, *after], host=HOST, store=STORE)

    total_s = models.durations.phases_of(_work(1)).total_s
    assert total_s == pytest.approx(2.3, rel=0.15)


def _coded(number: int, sampled_bytes_s: float) -> DumpRecord:
    """A dump through a codec that is half as fast as with the sample, to a store of 100 MB/s."""
    size = 2e8 + 2e7 * (number % 40)
    flow = Pipeline(2e9, 0.5 * sampled_bytes_s, 1e8, 0.0).flow(size, 0.2)
    return DumpRecord(
        time_s=1e9 + number,
        host=HOST,
        store=STORE,
        program=f"program{number % 10}",
        work=Work(resident_bytes=size, sent_bytes=size, ratio=0.2, codec_bytes_s=sampled_bytes_s),
        phases=Phases(0.1, 0.05, flow.seconds, 0.05),
        stored_bytes=flow.stored_bytes,
        rates=Rates(0.5 * sampled_bytes_s, 1, 1e8),
    )


def test_how_fast_the_codec_is_on_the_tasks_own_memory_counts() -> None:
    """Some tasks compress four times as fast as others; no program is forecast from its own dumps."""
    slow, quick = 2e8, 8e8
    records = [_coded(number, quick if number % 2 else slow) for number in range(80)]
    models = Models.learn(records, host=HOST, store=STORE)

    errors = [
        abs(models.durations.phases_of(one.work).total_s / one.phases.total_s - 1)
        for one in records
    ]
    assert np.median(errors) < 0.05
    assert max(errors) < 0.15
    unsampled = attrs.evolve(records[0].work, codec_bytes_s=None)
    between = [models.durations.phases_of(one.work).total_s for one in (records[1], records[0])]
    assert between[0] < between[1]
    assert models.durations.phases_of(unsampled).total_s <= between[1] * 1.01


def test_records_made_before_the_codec_was_sampled_are_understood() -> None:
    record = _coded(0, 2e8)
    older = record.to_json()
    del older["work"]["codec_bytes_s"]

    assert DumpRecord.from_json(older).work == attrs.evolve(record.work, codec_bytes_s=None)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_few_records_are_enough_to_learn(count: int) -> None:
    models = Models.learn(SimulatedHost().records(count, programs=1), host=HOST, store=STORE)

    assert models.count == count
    assert any("wide" in note for note in models.notes)
    assert models.duration.around(1.0).low < 1 < models.duration.around(1.0).high


def test_records_survive_json() -> None:
    for record in SimulatedHost().records(3):
        assert DumpRecord.from_json(record.to_json()) == record


@pytest.mark.parametrize(
    "damage",
    [
        {"work": None},
        {"time_s": "soon"},
        {"time_s": float("nan")},
        {"phases": {"walk_s": -1}},
        {"promise": {}},
        {"stored_bytes": None},
    ],
)
def test_a_record_that_is_none_is_refused(damage: dict[str, object]) -> None:
    (record,) = SimulatedHost().records(1)
    with pytest.raises(ValueError, match=r"\w"):
        DumpRecord.from_json({**record.to_json(), **damage})


def test_costs_are_found_and_never_negative() -> None:
    random = np.random.default_rng(3)
    features = random.uniform(0, 10, (60, 3))
    truth = np.array([0.5, 0.0, 2.0])
    seconds = features @ truth * random.lognormal(0, 0.02, 60)

    found = Regression.fit(features, seconds, np.array([1.0, 0.3, 1.0])).coefficients

    assert (found >= 0).all()
    assert found == pytest.approx(truth, abs=0.1)


def test_without_observations_costs_are_the_prior() -> None:
    prior = np.array([0.1, 0.2])

    assert Regression.fit(np.empty((0, 2)), np.empty(0), prior).coefficients == pytest.approx(prior)


def test_a_hiccup_does_not_spoil_what_was_learned() -> None:
    features = np.column_stack([np.ones(40), np.linspace(0.1, 2, 40)])
    seconds = features @ np.array([0.1, 1.0])
    seconds[7] *= 20

    found = Regression.fit(features, seconds, np.array([0.2, 0.5])).coefficients

    assert found == pytest.approx([0.1, 1.0], rel=0.1)


finite = st.floats(-2, 2)


@given(st.lists(finite, max_size=120), st.floats(1e-3, 1e3), st.floats(1, 5))
def test_intervals_are_ordered_and_agree_with_probabilities(
    errors: list[float], forecast: float, scatter: float
) -> None:
    spread = Spread.learn(errors, 0.3)
    interval = spread.around(forecast, scatter)

    assert interval.low <= interval.median <= interval.high
    assert spread.below(forecast, interval.median * 1.0001, scatter) >= 0.499
    assert spread.below(forecast, interval.median * 0.9999, scatter) <= 0.501


@given(
    st.lists(finite, max_size=120),
    st.floats(0, 1e3),
    st.floats(0, 1e3),
    st.floats(1, 3),
    st.floats(1, 5),
)
def test_a_higher_limit_or_a_lower_forecast_is_never_less_likely(
    errors: list[float], forecast: float, limit: float, factor: float, scatter: float
) -> None:
    spread = Spread.learn(errors, 0.3)
    probability = spread.below(forecast, limit, scatter)

    assert 0 <= probability <= 1
    assert spread.below(forecast, limit * factor, scatter) >= probability - 1e-12
    assert spread.below(forecast / factor, limit, scatter) >= probability - 1e-12


def test_an_interval_is_never_out_of_order() -> None:
    with pytest.raises(ValueError, match="not in order"):
        Interval(2, 1, 3)


@given(st.integers(0, 10**12), st.floats(0, 1), st.floats(1e6, 1e11), st.floats(1, 10))
def test_a_faster_store_is_never_slower(
    sent: int, ratio: float, store_bytes_s: float, factor: float
) -> None:
    slow = Pipeline(1e9, 4e8, store_bytes_s).flow(sent, ratio)
    fast = Pipeline(1e9, 4e8, store_bytes_s * factor).flow(sent, ratio)

    assert fast.seconds <= slow.seconds * (1 + 1e-9)
    assert 0 <= slow.stored_bytes <= sent * (1 + 1e-9)
    assert slow.seconds * store_bytes_s >= slow.stored_bytes * (1 - 1e-9)
