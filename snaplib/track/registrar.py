"""Registering the mappings of a process for write protection, so that none is ever registered in part."""

from __future__ import annotations

import contextlib
import errno
import itertools
import time
from typing import TYPE_CHECKING

import numpy as np

from snaplib.track.areas import stretches
from snaplib.track.records import MemoryKind
from snaplib.track.runs import PAGE_BYTES
from snaplib.track.states import unwatched

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from snaplib.kernel.pagemap import Pagemap
    from snaplib.kernel.uffd import Userfaultfd
    from snaplib.track.areas import Area
    from snaplib.track.look import Look

__all__ = ["Registrar"]

#: What REGISTER says of mappings that cannot be tracked: droppable or a device's; a file opened for
#: reading only; another userfaultfd's.
_REFUSALS = frozenset({errno.EINVAL, errno.EPERM, errno.EBUSY})


class Registrar:
    """Registers the mappings of one address space.

    Args:
        userfaultfd: Of the address space.
        pagemap: Of the same.

    Attributes:
        refused: Areas that the kernel would not track.
    """

    def __init__(self, userfaultfd: Userfaultfd, pagemap: Pagemap) -> None:
        self._userfaultfd = userfaultfd
        self._pagemap = pagemap
        self.refused: set[Area] = set()
        #: Mappings of files that are no device's.
        self._plain: set[Area] = set()

    def is_plain(self, area: Area) -> bool:
        """Whether scans look at an area at all: they pass over memory of devices without a word."""
        if area.kind is MemoryKind.PRIVATE or area in self._plain:
            return True
        if not self._pagemap.scan(area.start, area.start + PAGE_BYTES).size:
            return False
        self._plain.add(area)
        return True

    def unwatched(self, group: Sequence[Area]) -> Iterable[Area]:
        """Yield the areas of a group that hold something and are not registered."""
        regions = unwatched(self._pagemap, group[0].kind, group[0].start, group[-1].end)
        if regions.size:
            starts = np.array([area.start for area in group], np.uint64)
            ends = np.array([area.end for area in group], np.uint64)
            # A region may be of a mapping between them that is not to be watched.
            first = np.searchsorted(ends, regions[:, 0], "right")
            after = np.searchsorted(starts, regions[:, 1], "left")
            for index in sorted(
                {index for bounds in zip(first, after, strict=True) for index in range(*bounds)}
            ):
                yield group[index]

    def register_missing(
        self, areas: Sequence[Area], look: Look, *, until_s: float, anew: bool
    ) -> None:
        """Register the areas that are not; the process must stand still.

        Args:
            areas: All of the process.
            look: The look so far.
            until_s: When the process may run again, on CLOCK_MONOTONIC: what is not registered by
                then has to wait.
            anew: Take all areas as new, those that are registered too.
        """
        chosen = bytearray(len(areas))
        for index, area in enumerate(areas):
            if area in look.seen:
                continue
            if not self.is_plain(area):
                self.refused.add(area)
                look.fresh.add(area)
            elif area in look.missing or anew or not self._pagemap.registered(area.start):
                chosen[index] = not self._can_wait(area)
            else:
                look.again.append(area)
        self._choose_neighbours(areas, chosen)
        for stretch in stretches(itertools.compress(areas, chosen)):
            if not self._register(look, stretch, until_s):
                return
        look.settled = True

    def _can_wait(self, area: Area) -> bool:
        """Whether an area may stay unregistered: libraries without a page of the task's own.

        Registering them would cost the task more faults: the kernel then maps file pages one by
        one, not 16 at a time.
        """
        return (
            area.kind is MemoryKind.PRIVATE_FILE
            and not area.writable
            and not any(self.unwatched([area]))
        )

    def _choose_neighbours(self, areas: Sequence[Area], chosen: bytearray) -> None:
        """Choose what was, or will be, one mapping with what is chosen.

        Registered in part, a mapping that is just protected in part would never be one again, and
        system calls that take only one (mremap(2)) would fail in the task.
        """
        for index in [index for index, one in enumerate(chosen) if one]:
            for step in (-1, 1):
                at = index + step
                while 0 <= at < len(areas) and not chosen[at]:
                    area = areas[at]
                    if not area.may_join(areas[at - step]) or area in self.refused:
                        break
                    if self._pagemap.registered(area.start):
                        break
                    chosen[at] = True
                    at += step

    def _register(self, look: Look, stretch: Sequence[Area], until_s: float) -> bool:
        """Register areas, unless it is too late; return whether it was in time.

        Done while the process runs, and changes its mappings, it could register half of one.
        """
        if time.monotonic() >= until_s:
            return False
        try:
            self._userfaultfd.register(stretch[0].start, stretch[-1].end)
        except OSError as error:
            if error.errno == errno.ENOMEM:
                raise ProcessLookupError(errno.ESRCH, "its address space is gone") from None
            if error.errno not in _REFUSALS:
                raise
            # The call takes all of a range or nothing.
            if len(stretch) == 1:
                self.refused.add(stretch[0])
            else:
                return all(self._register(look, [area], until_s) for area in stretch)
        if time.monotonic() >= until_s:
            with contextlib.suppress(OSError):
                self._userfaultfd.unregister(stretch[0].start, stretch[-1].end)
            return False
        look.fresh.update(stretch)
        return True
