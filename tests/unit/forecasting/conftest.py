"""What tests of forecasts share."""

from __future__ import annotations

import pytest

from snaplib.forecasting import Models
from snaplib.testing.dumps import HOST, STORE, SimulatedHost


@pytest.fixture(scope="session")
def learned() -> Models:
    """What 120 dumps teach."""
    return Models.learn(SimulatedHost().records(120), host=HOST, store=STORE)
