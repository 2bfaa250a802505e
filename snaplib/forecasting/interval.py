"""A figure that is not known exactly: its median, and bounds that hold nineteen times in twenty."""

from __future__ import annotations

import math

import attrs

__all__ = ["CONFIDENCE", "Interval"]

#: How often the truth is to lie between the bounds.
CONFIDENCE = 0.95


@attrs.frozen(order=False)
class Interval:
    """A median and the bounds around it.

    Attributes:
        low: What it is less than in 2.5 % of cases.
        median: What it is less than in half of them.
        high: What it is more than in 2.5 %; may be infinite.
    """

    low: float = attrs.field(converter=float)
    median: float = attrs.field(converter=float)
    high: float = attrs.field(converter=float)

    def __attrs_post_init__(self) -> None:
        """Refuse bounds that are in no order: a mistake of ours, not of a user."""
        if not self.low <= self.median <= self.high:
            raise ValueError(f"{self.low}, {self.median}, {self.high} are not in order")

    @classmethod
    def exact(cls, value: float) -> Interval:
        """Return the interval of a figure that is known."""
        return cls(value, value, value)

    @property
    def width(self) -> float:
        """From bound to bound, relative to the median; 0 where that is 0 or infinite."""
        if not self.median or math.isinf(self.median):
            return 0.0
        return (self.high - self.low) / self.median

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def scaled(self, factor: float) -> Interval:
        """Return it with all three multiplied by a factor that is not negative."""
        return Interval(self.low * factor, self.median * factor, self.high * factor)

    def at_most(self, limit: float) -> Interval:
        """Return it with nothing above a limit."""
        return Interval(min(self.low, limit), min(self.median, limit), min(self.high, limit))
