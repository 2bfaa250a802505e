"""One look at one process: what it has found so far, and what is still to be settled."""

from __future__ import annotations

import attrs

from snaplib.track.areas import Area
from snaplib.track.runs import RunArray
from snaplib.track.sampling import SampleCount
from snaplib.track.states import solid_pages

__all__ = ["Look"]


@attrs.define
class Look:
    """What one look at one process has found so far.

    Attributes:
        count: Adds up for the estimate where memory is sampled.
        seen: Areas whose state was found out.
        missing: Areas that hold something and are not registered.
        fresh: Areas that this look has registered.
        again: Registered areas that changed since they were looked at.
        runs: Pages that changed, and pages of unknown state; where they overlap, the earlier array
            holds.
        settled: Whether what could be registered is.
    """

    count: SampleCount = attrs.field(factory=SampleCount)
    seen: set[Area] = attrs.field(factory=set)
    missing: set[Area] = attrs.field(factory=set)
    fresh: set[Area] = attrs.field(factory=set)
    again: list[Area] = attrs.field(factory=list)
    runs: list[RunArray] = attrs.field(factory=list)
    settled: bool = False

    def add(self, runs: RunArray) -> None:
        """Add pages of wholly armed areas, or of unknown state."""
        if runs.size:
            self.runs.append(runs)
            self.count.add_certain(solid_pages(runs))
