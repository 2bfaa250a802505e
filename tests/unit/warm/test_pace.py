"""How fast copying ahead may be."""

from __future__ import annotations

import pytest

from snaplib.warm import Pace


class Clocks:
    """Two clocks that stand still until they are set."""

    def __init__(self):
        self.now = 100.0
        self.cpu = 7.0

    def pace(self, **bounds):
        return Pace(**bounds, clock=lambda: self.now, cpu_clock=lambda: self.cpu)


@pytest.fixture
def clocks():
    return Clocks()


def test_a_share_of_a_cpu(clocks):
    """What has been used is waited for until it is the share that it may be."""
    pace = clocks.pace(cpu_share=0.02)
    clocks.cpu += 0.01
    clocks.now += 0.1
    assert pace.pause_s(0) == pytest.approx(0.4)
    clocks.now += 0.4
    assert pace.pause_s(0) == 0
    clocks.cpu += 10
    assert 0 < pace.pause_s(0) <= 5


def test_bytes_a_second(clocks):
    """Bytes count until they have had their time, also from one round to the next."""
    pace = clocks.pace(bytes_per_s=1000)
    assert pace.pause_s(500) == pytest.approx(0.5)
    assert pace.pause_s(1000) == pytest.approx(1.5)
    clocks.now += 1.5
    assert pace.pause_s(0) == 0
    pace.begin()
    assert pace.pause_s(0) == 0


def test_bytes_are_owed(clocks):
    """A piece may be more than a second's; its time is waited for later, whatever the CPU may do."""
    pace = clocks.pace(bytes_per_s=1000, cpu_share=0.02)
    assert pace.pause_s(60_000) == pytest.approx(60)
    clocks.now += 20
    pace.begin()
    assert pace.owed_s() == pytest.approx(40)
    with pace.any_cpu_share():
        clocks.cpu += 10
        assert pace.pause_s(1000) == pytest.approx(41)
    with pace.unbounded():
        assert pace.pause_s(1 << 40) == 0
    assert pace.owed_s() == pytest.approx(41)
    clocks.now += 1000
    assert pace.owed_s() == 0
    assert pace.pause_s(500) == pytest.approx(0.5)


def test_no_bounds(clocks):
    """Without bounds, or when there is no time to lose, nothing is waited for."""
    assert clocks.pace().pause_s(1 << 40) == 0
    pace = clocks.pace(bytes_per_s=1)
    with pace.unbounded():
        assert pace.pause_s(1 << 40) == 0
    assert pace.pause_s(1) > 0
