"""Arming only some regions of memory, and what their count says about the whole.

Memory is cut at multiples of 2 MiB, whatever is mapped there, so that a region is chosen or not for
as long as the task runs. Of each group of eight neighbours (for 1/8) a hash of the group's number
chooses one: as good as chance for the task, and spread evenly. Small mappings, where a task's
hottest pages are (stacks, globals), are armed wholly.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from snaplib.track.records import Estimate
from snaplib.track.runs import PAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from fractions import Fraction

    from snaplib.track.areas import Area

__all__ = ["REGION_BYTES", "SampleCount", "sampled_pieces", "spans"]

#: What one page-table page maps, and the size of a transparent huge page on x86-64.
REGION_BYTES = 2 << 20

#: Constants of the SplitMix64 finalizer (Steele, Lea, Flood: Fast splittable pseudorandom number
#: generators, OOPSLA 2014).
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def sampled_pieces(
    start: int, end: int, sample: Fraction | None
) -> tuple[tuple[int, int], ...] | None:
    """Return the parts of an area that are armed, ascending; None if all of it is.

    Args:
        start: First address of the area.
        end: Address after its last.
        sample: The fraction to arm, between 0 and 1; None for all.
    """
    if sample is None or end - start < sample.denominator * REGION_BYTES:
        return None
    group_size = sample.denominator
    regions = np.arange(start // REGION_BYTES, -(-end // REGION_BYTES), dtype=np.uint64)
    chosen = _mixed(regions // np.uint64(group_size)) % np.uint64(group_size)
    place = (regions + np.uint64(group_size) - chosen) % np.uint64(group_size)
    return tuple(
        (max(start, region * REGION_BYTES), min(end, (region + 1) * REGION_BYTES))
        for region in regions[place < np.uint64(sample.numerator)].tolist()
    )


def spans(group: Sequence[Area], sample: Fraction | None) -> Iterator[tuple[int, int, Area | None]]:
    """Yield stretches to scan in one go, and the areas that are sampled by themselves.

    Args:
        group: Areas of one kind, ascending.
        sample: As for `sampled_pieces`.
    """
    if sample is None:
        yield group[0].start, group[-1].end, None
        return

    def is_sampled(area: Area) -> bool:
        return sampled_pieces(area.start, area.end, sample) is not None

    for by_pieces, some in itertools.groupby(group, key=is_sampled):
        stretch = list(some)
        if by_pieces:
            yield from ((area.start, area.end, area) for area in stretch)
        else:
            yield stretch[0].start, stretch[-1].end, None


def _mixed(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    mixed = numbers * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in _MIX:
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


class SampleCount:
    """Adds up what was counted in sampled and in wholly armed areas."""

    def __init__(self) -> None:
        self._certain_pages = 0
        self._sampled: list[int] = []
        self._sampled_bytes = 0
        self._area_bytes = 0

    def add_certain(self, pages: int) -> None:
        """Add pages of areas that are armed wholly."""
        self._certain_pages += pages

    def add_area(self, size_bytes: int) -> None:
        """Add an area of which only pieces are armed."""
        self._area_bytes += size_bytes

    def add_piece(self, size_bytes: int, pages: int) -> None:
        """Add what was counted in one piece; pieces come in address order."""
        self._sampled.append(pages)
        self._sampled_bytes += size_bytes

    def add(self, other: SampleCount) -> None:
        """Add what was counted elsewhere, at higher addresses or in another process."""
        self._certain_pages += other._certain_pages
        self._sampled += other._sampled
        self._sampled_bytes += other._sampled_bytes
        self._area_bytes += other._area_bytes

    def estimate(self) -> Estimate:
        """Return the total: a ratio estimate, with the standard error by successive differences.

        Source: Wolter, Introduction to Variance Estimation (2nd ed., 2007), section 8.2, estimator
        v2, for one unit chosen from each of many ordered strata.
        """
        if not self._area_bytes:
            return Estimate(float(self._certain_pages))
        if not self._sampled_bytes:
            # Nothing is known of these areas but their size.
            pages = self._area_bytes / PAGE_BYTES
            return Estimate(self._certain_pages + pages / 2, pages / 2)
        counts = np.array(self._sampled, float)
        ratio = self._area_bytes / self._sampled_bytes
        total = float(counts.sum()) * ratio
        if counts.size > 1:
            spread = float((np.diff(counts) ** 2).sum()) / (2 * (counts.size - 1))
            error = ratio * math.sqrt((1 - 1 / ratio) * counts.size * spread)
        else:
            error = total
        return Estimate(self._certain_pages + total, error)
