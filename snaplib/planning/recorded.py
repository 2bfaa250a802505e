"""A recording of a task: what it wrote between any two instants."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from snaplib.forecasting import DirtyCurve

if TYPE_CHECKING:
    from snaplib.observe import Profile

__all__ = ["Recorded"]


class Recorded:
    """A recording: what was written between any two instants of it.

    Args:
        profiles: In the order of time; those that go back in time are left out.
    """

    def __init__(self, profiles: Iterable[Profile]) -> None:
        kept: list[Profile] = []
        for profile in profiles:
            if not kept or profile.monotonic_s > kept[-1].monotonic_s:
                kept.append(profile)
        self.profiles: Sequence[Profile] = kept
        self._times = np.array([one.monotonic_s for one in kept])
        self._curves = [DirtyCurve.of(one) for one in kept]

    @property
    def length_s(self) -> float:
        """From the first profile to the last."""
        return float(self._times[-1] - self._times[0]) if self.profiles else 0.0

    def dirty_between(self, since_s: float, until_s: float) -> float:
        """Return the bytes in distinct pages written between two instants (CLOCK_MONOTONIC).

        Behind the end of the recording the task goes on as it did at last.
        """
        at = min(int(np.searchsorted(self._times, until_s)), len(self.profiles) - 1)
        curve, seen_s = self._curves[at], float(self._times[at])
        if until_s > seen_s or since_s > seen_s:
            return curve.at(until_s - since_s)
        # The profile was taken a little later than asked for: what was written since does not count.
        late = curve.at(seen_s - since_s) - curve.at(seen_s - until_s)
        return max(late, min(curve.at(until_s - since_s), curve.at(seen_s - since_s)))
