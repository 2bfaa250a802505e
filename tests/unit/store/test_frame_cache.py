"""Frames by demand: what is kept, and what is fetched again."""

from __future__ import annotations

import collections
from collections.abc import Iterator

import pytest

from snaplib.errors import SnapshotDamaged, StoreUnreachable
from snaplib.store.framecache import FrameCache


@pytest.fixture
def loads() -> collections.Counter[int]:
    """How often each frame was fetched."""
    return collections.Counter()


@pytest.fixture
def cache(loads: collections.Counter[int]) -> Iterator[FrameCache]:
    """A cache of three frames and frame 7."""

    def load(number: int) -> bytes:
        loads[number] += 1
        return bytes([number])

    made = FrameCache(load, 3, kept=[7])
    yield made
    made.close()


def test_the_last_ones_are_kept(cache: FrameCache, loads: collections.Counter[int]) -> None:
    """What was asked for longest ago goes first."""
    for number in (0, 1, 2, 0, 3, 0, 1):
        assert cache.get(number) == bytes([number])
    assert loads == {0: 1, 1: 2, 2: 1, 3: 1}


def test_frames_to_keep(cache: FrameCache, loads: collections.Counter[int]) -> None:
    """They stay whatever comes after, and take no other frame's place."""
    cache.want([7])
    for number in (0, 1, 2, 0, 1, 2, 7, 3, 4, 5, 7):
        assert cache.get(number) == bytes([number])
    assert loads == dict.fromkeys((7, 0, 1, 2, 3, 4, 5), 1)


def test_what_stumbles_is_fetched_again() -> None:
    """A store out of reach is waited for; wrong bytes three times are the store's own."""
    answers = iter([StoreUnreachable("away"), SnapshotDamaged("cut"), b"right"])

    def load(number: int) -> bytes:
        answer = next(answers) if number == 0 else SnapshotDamaged("wrong")
        if isinstance(answer, Exception):
            raise answer
        return answer

    pauses: list[float] = []
    cache = FrameCache(load, sleep=pauses.append)
    assert cache.get(0) == b"right"
    assert len(pauses) == 2
    with pytest.raises(SnapshotDamaged, match="wrong"):
        cache.get(1)
    cache.close()
