"""How fast a task's memory grows."""

from __future__ import annotations

import itertools
from collections import deque

from snaplib.arrays import quantile

__all__ = ["Growth"]

#: Of so many looks, the newest: their median is not misled by one that met a sudden change.
_LOOKS = 6


class Growth:
    """Keeps the sizes of a task at the newest looks, and tells how fast they grow."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int]] = deque(maxlen=_LOOKS)

    def add(self, monotonic_s: float, size_bytes: int) -> float | None:
        """Add a look.

        Args:
            monotonic_s: When it was, later than the one before.
            size_bytes: The size.

        Returns:
            The median growth between two looks in bytes a second, negative where the task shrinks; None
            at the first look.
        """
        self._looks.append((monotonic_s, size_bytes))
        rates = [
            (size - size_then) / (now_s - then_s)
            for (then_s, size_then), (now_s, size) in itertools.pairwise(self._looks)
            if now_s > then_s
        ]
        return quantile(rates, 0.5) if rates else None
