"""How much of a task's memory a copy will miss, by the time that has gone by since."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from snaplib.observe import PageAges, Profile

__all__ = ["DirtyCurve"]

FloatArray = npt.NDArray[np.float64]

#: How many points there are before the first age, each at half the time of the next.
_HALVINGS = 6
_UNKNOWN_POWER = 0.5
_LEAST_POWER = 0.2


def _immutable(values: npt.ArrayLike) -> FloatArray:
    array = np.array(values, np.float64)
    array.flags.writeable = False
    return array


@attrs.frozen
class DirtyCurve:
    """Bytes in distinct pages that are written within t seconds, taken from the past for the future.

    Attributes:
        times_s: Ascending from 0; shape (n,), float64.
        dirty_bytes: What is dirty then; shape (n,), float64, never decreasing, 0 at first.
        tail_bytes_s: By how much it grows after the last time.
        limit_bytes: It is never more than this: all that would be dumped.
        lower_bound: Whether more may be dirty: only first touches of pages were seen, or nothing.
    """

    times_s: FloatArray = attrs.field(
        converter=_immutable, eq=attrs.cmp_using(eq=np.array_equal), repr=False
    )
    dirty_bytes: FloatArray = attrs.field(
        converter=_immutable, eq=attrs.cmp_using(eq=np.array_equal), repr=False
    )
    tail_bytes_s: float
    limit_bytes: float
    lower_bound: bool = False

    @classmethod
    def of(cls, profile: Profile) -> DirtyCurve:
        """Return the curve of a profile."""
        return cls.from_ages(
            profile.page_ages,
            profile.dumpable_bytes,
            floor_bytes=profile.untracked_bytes,
            lower_bound=profile.dirty_basis == "faults",
        )

    @classmethod
    def from_ages(
        cls,
        ages: PageAges,
        limit_bytes: float,
        *,
        floor_bytes: float = 0.0,
        lower_bound: bool = False,
    ) -> DirtyCurve:
        """Return the curve that ages of pages draw.

        Args:
            ages: When pages were last written.
            limit_bytes: What a full dump would hold.
            floor_bytes: What counts as dirty at any time.
            lower_bound: See the attribute.
        """
        times, dirty = ages.ages_s, ages.distinct_bytes
        # A clock that jumped may have left ages that make no sense.
        sound = np.isfinite(times) & np.isfinite(dirty) & (times > 0) & (dirty >= 0)
        order = np.argsort(times[sound], kind="stable")
        times = np.append(0.0, times[sound][order])
        dirty = (
            np.append(0.0, np.maximum.accumulate(dirty[sound][order]))
            if order.size
            else np.zeros(1)
        )
        # Of one time there may be several, the last the most.
        last = np.append(np.diff(times) > 0, True)
        times, dirty = _refined(times[last], dirty[last])
        dirty = np.minimum(np.maximum(dirty, floor_bytes * (times > 0)), limit_bytes)
        half = np.searchsorted(times, times[-1] / 2)
        span = times[-1] - times[min(half, len(times) - 1)]
        if span > 0:
            tail = (dirty[-1] - dirty[half]) / span
        elif times[-1] > 0:
            tail = dirty[-1] / times[-1]
        else:
            tail = 0.0
        # What was never watched may be written all the time.
        unseen = times.size < 2
        return cls(times, dirty, float(tail), float(limit_bytes), lower_bound or unseen)

    @property
    def known_s(self) -> float:
        """How far it was seen; later it is extrapolated."""
        return float(self.times_s[-1])

    def at(self, seconds: float) -> float:
        """Return what is dirty after so many seconds."""
        if seconds <= 0:
            return 0.0
        if seconds >= self.known_s:
            more = self.tail_bytes_s * (seconds - self.known_s) if self.tail_bytes_s > 0 else 0.0
            return float(min(self.dirty_bytes[-1] + more, self.limit_bytes))
        return float(np.interp(seconds, self.times_s, self.dirty_bytes))

    def latest(self, most_bytes: float) -> float:
        """Return the time until which no more than so much is dirty; infinite if that is for ever."""
        if most_bytes >= self.limit_bytes:
            return float("inf")
        if most_bytes < 0:
            return 0.0
        if most_bytes >= self.dirty_bytes[-1]:
            if self.tail_bytes_s <= 0:
                return float("inf")
            return self.known_s + (most_bytes - float(self.dirty_bytes[-1])) / self.tail_bytes_s
        after = int(np.searchsorted(self.dirty_bytes, most_bytes, side="right"))
        low, high = self.dirty_bytes[after - 1], self.dirty_bytes[after]
        share = (most_bytes - low) / (high - low)
        return float(
            self.times_s[after - 1] + share * (self.times_s[after] - self.times_s[after - 1])
        )


def _refined(times: FloatArray, dirty: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Fill in what happens before the first age, where looks are far apart.

    Most tasks write some pages again and again: what is dirty grows quickly at first. It is continued as the
    first two ages suggest, by a power of time; from one age alone nothing can be told, and the root is taken.
    """
    if times.size < 2 or dirty[1] <= 0:
        return times, dirty
    power = _UNKNOWN_POWER
    if times.size > 2:
        power = float(np.log(dirty[2] / dirty[1]) / np.log(times[2] / times[1]))
    shares = 0.5 ** np.arange(_HALVINGS, 0, -1)
    early = dirty[1] * shares ** min(max(power, _LEAST_POWER), 1.0)
    return (
        np.concatenate((times[:1], times[1] * shares, times[1:])),
        np.concatenate((dirty[:1], early, dirty[1:])),
    )
