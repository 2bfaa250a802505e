"""One process whose pages are write-protected, so that its next write to each is seen."""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING

import attrs
import numpy as np

from snaplib.kernel.memory import collapse_huge
from snaplib.kernel.pagemap import Category, Pagemap
from snaplib.track.areas import Area, areas_of
from snaplib.track.records import MemoryKind, Unknown
from snaplib.track.runs import PAGE_BYTES, RunArray, join_runs
from snaplib.track.sampling import SampleCount, sampled_pieces
from snaplib.track.states import changed, populated, solid_pages, to_runs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from fractions import Fraction

    from snaplib.kernel import ProcFs
    from snaplib.kernel.pagemap import RegionArray
    from snaplib.kernel.uffd import Userfaultfd

__all__ = ["ArmedProcess", "Look"]

_THERE = Category.PRESENT | Category.SWAPPED

#: What REGISTER says of mappings that cannot be tracked: droppable or a device's; a file opened for
#: reading only; another userfaultfd's.
_REFUSALS = frozenset({errno.EINVAL, errno.EPERM, errno.EBUSY})

#: Huge pages are asked back this many at a time.
_COLLAPSE_BATCH = 16


@attrs.define
class Look:
    """What one look at one process has found so far.

    Attributes:
        count: Adds up for the estimate.
        seen: Areas whose state was found out.
        missing: Areas that are not registered, or not wholly.
        fresh: Areas registered by this look.
        runs: Pages that changed, and pages of unknown state; the earlier array holds where they
            overlap.
    """

    count: SampleCount = attrs.field(factory=SampleCount)
    seen: set[Area] = attrs.field(factory=set)
    missing: list[Area] = attrs.field(factory=list)
    fresh: list[Area] = attrs.field(factory=list)
    again: list[Area] = attrs.field(factory=list)
    runs: list[RunArray] = attrs.field(factory=list)

    def add(self, runs: RunArray) -> None:
        """Add pages of wholly armed areas, or of unknown state."""
        self.runs.append(runs)
        self.count.add_certain(solid_pages(runs))


class ArmedProcess:
    """Tracks one address space.

    A look goes in three steps: `look` while the process runs; if that left something `missing`,
    `settle` while it stands still, which registers it, and `finish`, when it may run again.

    All methods raise ``ProcessLookupError`` when the process has ended or executed another program.

    Args:
        pid: The process.
        userfaultfd: Of its address space; this object closes it.
        procfs: Where it is seen.
        sample: The fraction of its memory to arm, or None for all.
    """

    def __init__(
        self, pid: int, userfaultfd: Userfaultfd, procfs: ProcFs, sample: Fraction | None
    ) -> None:
        self.pid = pid
        self._userfaultfd = userfaultfd
        self._procfs = procfs
        self._sample = sample
        self._refused: set[Area] = set()
        self._program: tuple[int, ...] | None = None
        #: Where transparent huge pages were before arming, which splits them.
        self._huge: list[RegionArray] = []
        try:
            self._pidfd = os.pidfd_open(pid)
            try:
                self._pagemap = Pagemap(f"{procfs.root}/{pid}/pagemap")
            except OSError:
                os.close(self._pidfd)
                raise
        except OSError:
            userfaultfd.close()
            raise

    def watched_by_another(self) -> bool:
        """Return whether an area is registered already, before we registered any."""
        return any(self._pagemap.registered(area.start) for area in self._areas())

    def look(self, look: Look, *, rearm: bool) -> None:
        """Find out what changed, while the process may run."""
        self._look_at(look, self._areas(), rearm=rearm)

    def settle(self, look: Look) -> None:
        """Register the areas that are not; the process must stand still."""
        for area in self._areas():
            if area in look.seen or self._can_wait(area):
                continue
            if self._pagemap.registered(area.start):
                # Part of what was looked at before, changed since.
                look.again.append(area)
            else:
                self._register(area)
                look.fresh.append(area)

    def finish(self, look: Look, *, rearm: bool = True) -> None:
        """Look at what `settle` registered, and note what is missing for good."""
        missing = [area for area in look.missing if area not in look.fresh]
        look.missing.clear()
        self._look_at(look, look.again, rearm=rearm)
        for area in look.fresh:
            if area in self._refused:
                self.give_up(look, area, Unknown.REFUSED)
            else:
                self._welcome(look, area)
        for area in (*missing, *look.missing):
            self.give_up(look, area, Unknown.UNREGISTERED)
        look.missing.clear()

    def give_up(self, look: Look, area: Area, why: Unknown) -> None:
        """Note all of an area that may hold something as of unknown state."""
        look.add(to_runs(populated(self._pagemap, area), area.kind, why))

    def distrust(self, look: Look) -> None:
        """Note all of the process as of unknown state."""
        for area in self._areas():
            self.give_up(look, area, Unknown.FAILED)

    def mappings(self, look: Look) -> tuple[int, int]:
        """Return how many areas are registered after a look, and the bytes of those refused."""
        known = {*look.seen, *look.fresh}
        refused = known & self._refused
        return len(known) - len(refused), sum(area.end - area.start for area in refused)

    def close(self) -> None:
        """Disarm it; it runs on."""
        self._userfaultfd.close()
        self._pagemap.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def disarm(self, collapse_until_s: float) -> None:
        """Disarm it and give it back the huge pages that it had.

        Args:
            collapse_until_s: When to leave the rest to the kernel's own khugepaged, on
                CLOCK_MONOTONIC.

        Raises:
            OSError: It has its memory, but not all of its huge pages. `close` is still due.
        """
        self._userfaultfd.close()
        for regions in self._huge:
            ranges = [(start, end) for start, end, _ in regions.tolist()]
            for first in range(0, len(ranges), _COLLAPSE_BATCH):
                if time.monotonic() >= collapse_until_s:
                    return
                collapse_huge(self._pidfd, ranges[first : first + _COLLAPSE_BATCH])

    def _areas(self) -> tuple[Area, ...]:
        mappings = self._procfs.maps(self.pid)
        # Where the kernel put it is random anew for each program that is executed.
        program = tuple(mapping.start for mapping in mappings if mapping.path == "[vdso]")
        if self._program is None:
            self._program = program
        if not mappings or program != self._program:
            raise ProcessLookupError(errno.ESRCH, f"pid {self.pid} runs another program")
        return areas_of(mappings)

    def _look_at(self, look: Look, areas: Iterable[Area], *, rearm: bool) -> None:
        for area in areas:
            try:
                if area in self._refused:
                    self.give_up(look, area, Unknown.REFUSED)
                elif not self._can_wait(area):
                    self._add_changed(look, area, rearm=rearm)
                look.seen.add(area)
            except PermissionError:
                look.missing.append(area)

    def _add_changed(self, look: Look, area: Area, *, rearm: bool) -> None:
        pieces = sampled_pieces(area.start, area.end, self._sample)
        if pieces is None:
            look.add(changed(self._pagemap, area, area.start, area.end, rearm=rearm))
            return
        found = [
            (end - start, changed(self._pagemap, area, start, end, rearm=rearm))
            for start, end in pieces
        ]
        # Only now: what fails half-way must not be counted.
        look.count.add_area(area.end - area.start)
        for size_bytes, runs in found:
            look.runs.append(runs)
            look.count.add_piece(size_bytes, solid_pages(runs))

    def _welcome(self, look: Look, area: Area) -> None:
        """Arm an area that was just registered: all that is populated in it is new."""
        runs = self._new(area)
        try:
            pieces = sampled_pieces(area.start, area.end, self._sample)
            armed = [
                changed(self._pagemap, area, start, end, rearm=True)
                for start, end in pieces or ((area.start, area.end),)
            ]
        except PermissionError:
            self.give_up(look, area, Unknown.UNREGISTERED)
            return
        if area.kind in (MemoryKind.SHARED, MemoryKind.SHARED_FILE):
            # Before arming, holes too count as written.
            there = [one[(one["state"] & np.uint16(_THERE)) != 0] for one in armed]
            look.add(join_runs((*there, runs)))
        else:
            # What was populated between the two questions is in the second answer.
            look.add(join_runs((runs, *armed)))

    def _new(self, area: Area) -> RunArray:
        regions = populated(self._pagemap, area)
        if area.kind is MemoryKind.PRIVATE:
            huge = regions[(regions[:, 2] & np.uint64(Category.HUGE)) != 0]
            if huge.size:
                self._huge.append(huge)
        shared = area.kind in (MemoryKind.SHARED, MemoryKind.SHARED_FILE)
        return to_runs(regions, area.kind, Unknown.UNSEEN if shared else Unknown.KNOWN)

    def _can_wait(self, area: Area) -> bool:
        """Whether an area is a read-only file mapping without a page of the task's own.

        Such are most mappings of libraries. Registering them would cost the task more faults, as
        the kernel then maps file pages one by one and not sixteen at a time.
        """
        return (
            area.kind is MemoryKind.PRIVATE_FILE
            and not area.writable
            and not self._pagemap.registered(area.start)
            and not populated(self._pagemap, area, most_pages=1).size
        )

    def _register(self, area: Area) -> None:
        # A kernel bug: mremap(2) can leave protection bits in a mapping that lost its
        # registration; they would hide all later writes to these pages.
        stale = self._pagemap.scan(
            area.start,
            area.end,
            lacking=Category.WPALLOWED | Category.WRITTEN,
            any_of=_THERE,
            report=Category.PRESENT,
            most_pages=1,
        )
        try:
            self._userfaultfd.register(area.start, area.end)
            if stale.size:
                self._userfaultfd.unprotect(area.start, area.end)
        except OSError as error:
            if error.errno == errno.ENOMEM:
                raise ProcessLookupError(errno.ESRCH, "its address space is gone") from None
            if error.errno not in _REFUSALS:
                raise
            self._refused.add(area)
            return
        # Scans pass over the memory of devices without a word.
        first_page = self._pagemap.scan(
            area.start,
            area.start + PAGE_BYTES,
            having=Category.WPALLOWED,
            report=Category.WPALLOWED,
        )
        if not first_page.size:
            self._refused.add(area)
