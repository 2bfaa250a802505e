"""Where memory is that a process had at some addresses when it was dumped, and has moved or given up since."""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

__all__ = ["Layout"]

#: Addresses are uint64, and so are the differences between them: sums wrap.
_Addresses = npt.NDArray[np.uint64]
_ALL = (1 << 64) - 1


@attrs.frozen(eq=False)
class Layout:
    """Ranges of addresses and by how much each has moved; it never changes, so threads and forks can share it.

    Attributes:
        begins: uint64, shape (n,): the first address of each range as it was, ascending.
        ends: uint64, shape (n,): the address after each.
        shifts: uint64, shape (n,): what is to be added to the addresses of each.
    """

    begins: _Addresses
    ends: _Addresses
    shifts: _Addresses

    @classmethod
    def of(cls, begins: _Addresses, ends: _Addresses) -> Layout:
        """Return the layout of ranges that are where they were.

        Args:
            begins: uint64, shape (n,), ascending.
            ends: uint64, shape (n,), none beyond the next begin.
        """
        apart = np.ones(len(begins), np.bool_)
        np.not_equal(begins[1:], ends[:-1], out=apart[1:])
        lasts = np.ones(len(ends), np.bool_)
        lasts[:-1] = apart[1:]
        begins = begins[apart]
        return cls(begins, ends[lasts], np.zeros_like(begins))

    def first(self, begin: int, end: int) -> tuple[int, int, int] | None:
        """Return where the first of some memory is that there still is.

        Args:
            begin: Its first address as it was.
            end: The address after it.

        Returns:
            The address as it was, as it is now, and how many bytes there are together; None where nothing is left.
        """
        place = int(np.searchsorted(self.ends, np.uint64(begin), "right"))
        if place == len(self.begins) or int(self.begins[place]) >= end:
            return None
        begin = max(begin, int(self.begins[place]))
        size = min(end, int(self.ends[place])) - begin
        return begin, (begin + int(self.shifts[place])) & _ALL, size

    def origin(self, address: int) -> int | None:
        """Return the address as it was of what is at an address now; None where that is something else."""
        begins, ends = self.begins + self.shifts, self.ends + self.shifts
        found = np.flatnonzero((begins <= np.uint64(address)) & (np.uint64(address) < ends))
        return (address - int(self.shifts[found[0]])) & _ALL if len(found) else None

    def without(self, begin: int, end: int) -> Layout:
        """Return the layout when the process has given up a range of addresses."""
        cut = _cut(_cut(self, begin), end)
        kept = ~_inside(cut, begin, end)
        return Layout(cut.begins[kept], cut.ends[kept], cut.shifts[kept])

    def moved(self, begin: int, to: int, size: int) -> Layout:
        """Return the layout when the process has moved a range of addresses; nothing else is where that is now."""
        cut = _cut(_cut(self.without(to, to + size), begin), begin + size)
        shifts = cut.shifts.copy()
        shifts[_inside(cut, begin, begin + size)] += np.uint64((to - begin) & _ALL)
        return Layout(cut.begins, cut.ends, shifts)


def _inside(layout: Layout, begin: int, end: int) -> npt.NDArray[np.bool_]:
    begins, ends = layout.begins + layout.shifts, layout.ends + layout.shifts
    inside: npt.NDArray[np.bool_] = (begins >= np.uint64(begin)) & (ends <= np.uint64(end))
    return inside


def _cut(layout: Layout, address: int) -> Layout:
    """Have no range on both sides of an address."""
    begins, ends = layout.begins + layout.shifts, layout.ends + layout.shifts
    across = np.flatnonzero((begins < np.uint64(address)) & (np.uint64(address) < ends))
    if not len(across):
        return layout
    place = int(across[0])
    border = np.uint64((address - int(layout.shifts[place])) & _ALL)
    return Layout(
        np.insert(layout.begins, place + 1, border),
        np.insert(layout.ends, place, border),
        np.insert(layout.shifts, place, layout.shifts[place]),
    )
