"""How long ago a task's pages were last written: what a copy made t seconds ago would miss by now."""

from __future__ import annotations

from typing import Literal

import attrs
import numpy as np
import numpy.typing as npt

__all__ = ["DirtyBasis", "PageAges"]

#: ``armed``: every write to a page is seen. ``sampled``: every write to a sample of the memory, scaled up.
#: ``faults``: only first touches of pages are seen, so all dirty figures are lower bounds that fall towards
#: zero for a task that writes the same pages over and over.
DirtyBasis = Literal["armed", "sampled", "faults"]

FloatArray = npt.NDArray[np.float64]


def _immutable(values: npt.ArrayLike) -> FloatArray:
    array = np.array(values, np.float64)
    array.flags.writeable = False
    return array


@attrs.frozen
class PageAges:
    """The distinct memory written in the last t seconds, for every t.

    Attributes:
        at_s: When that was (CLOCK_MONOTONIC): the end of the last interval that was looked at.
        since_s: Beginnings of intervals, the newest first; shape (n,), float64. The last is when writes
            began to be watched.
        distinct_bytes: Bytes in pages that were written at least once since then; shape (n,), float64,
            never decreasing. Pages that have gone since do not count.
    """

    at_s: float = 0.0
    since_s: FloatArray = attrs.field(
        factory=lambda: np.empty(0), converter=_immutable, eq=attrs.cmp_using(eq=np.array_equal)
    )
    distinct_bytes: FloatArray = attrs.field(
        factory=lambda: np.empty(0), converter=_immutable, eq=attrs.cmp_using(eq=np.array_equal)
    )

    @property
    def ages_s(self) -> FloatArray:
        """Age of each beginning, ascending; shape (n,), float64."""
        return self.at_s - self.since_s

    def distinct_dirty_bytes(self, t_s: float) -> float:
        """Return the bytes in distinct pages written within the last ``t_s`` seconds.

        Between two known ages it is interpolated. Beyond the last it is what was written since the watch
        began: a lower bound.
        """
        if not self.since_s.size or t_s <= 0:
            return 0.0
        return float(
            np.interp(t_s, np.append(0.0, self.ages_s), np.append(0.0, self.distinct_bytes))
        )

    def histogram(self) -> tuple[FloatArray, FloatArray]:
        """Return the edges of the age classes, shape (n + 1,), and the bytes in each, shape (n,)."""
        return np.append(0.0, self.ages_s), np.diff(self.distinct_bytes, prepend=0.0)
