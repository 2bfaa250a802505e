"""One task, interrupted at random moments in every way there is: its output is right, and so is every status."""

from __future__ import annotations

import pytest

from tests.system.chaos import Chaos
from tests.system.conftest import Bench

#: `python -m tests.benchmarks chaos` does a hundred and more, others each time.
INTERRUPTIONS = 15


@pytest.mark.slow
def test_interrupted_at_random_moments(bench: Bench) -> None:
    """What was written by all runs together is what one run would have written."""
    chaos = Chaos(bench, 23)
    for _ in range(INTERRUPTIONS):
        chaos.interrupt()
    assert chaos.finish() > 0
