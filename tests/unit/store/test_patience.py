"""What stumbles is read again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from snaplib.errors import SnapshotDamaged, StoreUnreachable
from snaplib.store.patience import patiently


def reader(*answers: bytes | Exception) -> Callable[[], bytes]:
    """Gives one answer after another, the last one for ever."""
    left = list(answers)

    def read() -> bytes:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return read


def test_what_stumbles_is_read_again() -> None:
    """A store out of reach is waited for, longer and longer but not for ever longer."""
    pauses: list[float] = []
    away = StoreUnreachable("away")
    read = reader(*[away] * 9, SnapshotDamaged("cut"), b"right")
    assert patiently(read, lambda seconds: not pauses.append(seconds)) == b"right"
    assert pauses == [0.5, 1, 2, 4, 8, 10, 10, 10, 10, 10]


def test_what_is_damaged_three_times_is_damaged() -> None:
    """That is the store's own."""
    with pytest.raises(SnapshotDamaged, match="wrong"):
        patiently(reader(SnapshotDamaged("wrong")), lambda _seconds: True)


def test_what_is_not_wanted_any_more() -> None:
    """Then it is enough to have tried."""
    with pytest.raises(StoreUnreachable):
        patiently(reader(StoreUnreachable("away")), lambda _seconds: False)
