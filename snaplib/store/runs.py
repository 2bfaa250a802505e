"""Sets of pages as runs: half-open ranges of page numbers, and the algebra of them.

Millions of pages are thousands of runs; every operation is a sort or a search over arrays, never a
loop over pages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np
import numpy.typing as npt

from snaplib.arrays import distinct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["RunSet"]

#: Page numbers: uint64, as addresses may use all bits.
Pages = npt.NDArray[np.uint64]


@attrs.frozen(eq=False)
class RunSet:
    """An immutable set of pages.

    Build one with `of` or `from_pages`; the constructor takes what is normal already.

    Attributes:
        begins: uint64, shape (n,): the first page of each run, ascending.
        ends: uint64, shape (n,): the page after the last of each run; less than the next's begin.
    """

    begins: Pages
    ends: Pages

    @classmethod
    def of(cls, begins: npt.ArrayLike, ends: npt.ArrayLike) -> RunSet:
        """Return the set of all pages in some ranges.

        Args:
            begins: Integers, shape (n,): the first page of each range, in any order.
            ends: Integers, shape (n,): the page after the last; ranges may be empty, touch and
                overlap.

        Raises:
            ValueError: A range ends before it begins.
        """
        low, high = np.asarray(begins, np.uint64), np.asarray(ends, np.uint64)
        if low.shape != high.shape or low.ndim != 1 or bool((high < low).any()):
            raise ValueError("not ranges of pages")
        low, high = low[low < high], high[low < high]
        if not len(low):
            return cls(low, high)
        order = np.argsort(low, kind="stable")
        low, reach = low[order], np.maximum.accumulate(high[order])
        # A run begins where nothing before reaches.
        first = np.flatnonzero(np.concatenate(([True], low[1:] > reach[:-1])))
        return cls(low[first], reach[np.concatenate((first[1:] - 1, [len(low) - 1]))])

    @classmethod
    def from_pages(cls, pages: npt.ArrayLike) -> RunSet:
        """Return the set of some pages.

        Args:
            pages: Integers, shape (n,), in any order, with or without repeats.
        """
        numbers = np.asarray(pages, np.uint64)
        return cls.of(numbers, numbers + np.uint64(1))

    def __len__(self) -> int:
        """How many runs there are."""
        return len(self.begins)

    def __eq__(self, other: object) -> bool:
        """Whether the same pages are in both."""
        if not isinstance(other, RunSet):
            return NotImplemented
        return np.array_equal(self.begins, other.begins) and np.array_equal(self.ends, other.ends)

    __hash__ = None  # type: ignore[assignment]  # arrays have no hash

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return int((self.ends - self.begins).sum())

    def __or__(self, other: RunSet) -> RunSet:
        """Return what is in either."""
        return RunSet.of(
            np.concatenate((self.begins, other.begins)), np.concatenate((self.ends, other.ends))
        )

    def __and__(self, other: RunSet) -> RunSet:
        """Return what is in both."""
        return self._combined(other, lambda mine, theirs: mine & theirs)

    def __sub__(self, other: RunSet) -> RunSet:
        """Return what is in this and not in the other."""
        return self._combined(other, lambda mine, theirs: mine & ~theirs)

    def contains(self, pages: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Tell of each page whether it is in the set.

        Args:
            pages: Integers, shape (n,).

        Returns:
            bool, shape (n,).
        """
        numbers = np.asarray(pages, np.uint64)
        if not len(self.begins):
            return np.zeros(len(numbers), np.bool_)
        run = np.searchsorted(self.begins, numbers, "right") - 1
        inside: npt.NDArray[np.bool_] = (run >= 0) & (numbers < self.ends[run])
        return inside

    def _combined(
        self,
        other: RunSet,
        rule: Callable[[npt.NDArray[np.bool_], npt.NDArray[np.bool_]], npt.NDArray[np.bool_]],
    ) -> RunSet:
        # Between two neighbouring borders all pages are alike: ask about the first of each.
        borders = distinct(_joined((self.begins, self.ends, other.begins, other.ends)))
        if len(borders) < 2:
            return RunSet(borders[:0], borders[:0])
        low, high = borders[:-1], borders[1:]
        chosen = rule(self.contains(low), other.contains(low))
        return RunSet.of(low[chosen], high[chosen])


def _joined(arrays: Iterable[Pages]) -> Pages:
    return np.concatenate(tuple(arrays))
