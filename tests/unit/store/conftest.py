"""What the store's tests share."""

from __future__ import annotations

import datetime as dt

import pytest

from snaplib.store import Store
from snaplib.testing.stores import MemoryBackend


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self):
        self.now = dt.datetime(2026, 11, 23, 22, 15, 30, tzinfo=dt.UTC)

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def memory():
    return MemoryBackend()


@pytest.fixture
def memory_store(memory, clock):
    return Store.over(memory, create=True, clock=clock)


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"), create=True)
