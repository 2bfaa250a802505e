"""The numbers of pages: those of all spaces together, so that sets of pages are runs of integers."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from snaplib.errors import UsageError
from snaplib.store.index import PAGE_BYTES
from snaplib.store.runs import RunSet

if TYPE_CHECKING:
    from collections.abc import Iterable

    from snaplib.store.index import Space

__all__ = ["SPACE_SHIFT", "Numbering"]

#: A page's number is that of its space, shifted by so many bits, and its own in it.  57 bits of address are 45 of page.
SPACE_SHIFT = 48


class Numbering:
    """Numbers pages; any thread may use it.

    Args:
        spaces: Those that have numbers already, in their order.
    """

    def __init__(self, spaces: Iterable[Space] = ()) -> None:
        self._lock = threading.Lock()
        self._spaces = list(spaces)
        self._numbers = {space: number for number, space in enumerate(self._spaces)}

    def number(self, space: Space, vaddr: int, pages: int = 1) -> int:
        """Return the number of a page; a new space gets one.

        Args:
            space: The space it is in.
            vaddr: Its address.
            pages: How many pages from there are to be numbered.

        Raises:
            UsageError: That is not a page, or they are too many.
        """
        number = vaddr // PAGE_BYTES
        if pages <= 0 or vaddr % PAGE_BYTES or (number + pages) >> SPACE_SHIFT:
            raise UsageError(f"no run of whole pages: {pages} pages at {vaddr:#x}")
        with self._lock:
            known = self._numbers.setdefault(space, len(self._spaces))
            if known == len(self._spaces):
                self._spaces.append(space)
        return (known << SPACE_SHIFT) + number

    def pages_of(self, space: Space) -> RunSet:
        """Return the numbers of all pages that a space can have."""
        first = self.number(space, 0)
        return RunSet.of([first], [first + (1 << SPACE_SHIFT)])

    def spaces(self) -> tuple[Space, ...]:
        """Return the spaces that pages have been numbered of, in the order of their numbers."""
        with self._lock:
            return tuple(self._spaces)

    def located(self, number: int) -> tuple[Space, int]:
        """Return the space and the address of a page, given its number."""
        space, page = divmod(number, 1 << SPACE_SHIFT)
        return self._spaces[space], page * PAGE_BYTES
