"""Figures for people."""

from __future__ import annotations

import pytest

from snaplib.cli.output import human_seconds


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.0, "0 ms"),
        (0.2304, "230 ms"),
        (0.9996, "1.00 s"),
        (59.99, "59.99 s"),
        (59.999, "1 min 0 s"),
        (119.97, "2 min 0 s"),
        (200.4, "3 min 20 s"),
    ],
)
def test_durations(seconds: float, told: str) -> None:
    assert human_seconds(seconds) == told
