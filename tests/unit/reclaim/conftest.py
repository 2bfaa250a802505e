"""What tests of notices share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from snaplib.reclaim import Notice, NoticeKind, PolledSource

Step = Callable[[PolledSource], list[Notice]]


class Clock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def step() -> Step:
    """Return what asks a source once and returns what it reports."""

    def ask(source: PolledSource) -> list[Notice]:
        reported: list[Notice] = []
        source.step(reported.append)
        return reported

    return ask


def kinds(notices: list[Notice]) -> list[NoticeKind]:
    """Return what the notices mean."""
    return [notice.kind for notice in notices]
