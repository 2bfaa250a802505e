"""One process whose pages are write-protected, so that its next write to each is seen."""

from __future__ import annotations

import contextlib
import errno
import operator
import os
import time
from typing import TYPE_CHECKING

import numpy as np

from snaplib.kernel.memory import collapse_huge
from snaplib.kernel.pagemap import Category, Pagemap
from snaplib.track.areas import Area, areas_of, groups, joined, stretches
from snaplib.track.files import FileTimes
from snaplib.track.records import MemoryKind, Unknown
from snaplib.track.registrar import Registrar
from snaplib.track.sampling import sampled_pieces, spans
from snaplib.track.states import changed, populated, solid_pages, stale, to_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from fractions import Fraction

    from snaplib.kernel import ProcFs
    from snaplib.kernel.pagemap import RegionArray
    from snaplib.kernel.uffd import Userfaultfd
    from snaplib.track.look import Look

__all__ = ["ArmedProcess"]

_THERE = np.uint16(Category.PRESENT | Category.SWAPPED)
_HUGE = np.uint64(Category.HUGE)
_SHARED = (MemoryKind.SHARED, MemoryKind.SHARED_FILE)

#: Huge pages are asked back this many at a time.
_COLLAPSE_BATCH = 16

_start = operator.attrgetter("start")


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
        members: Gives the pids of all processes of the task.
    """

    def __init__(
        self,
        pid: int,
        userfaultfd: Userfaultfd,
        procfs: ProcFs,
        sample: Fraction | None,
        members: Callable[[], Iterable[int]],
    ) -> None:
        self.pid = pid
        self._userfaultfd = userfaultfd
        self._procfs = procfs
        self._sample = sample
        self._files = FileTimes(procfs, pid, members)
        self._program: tuple[int, ...] | None = None
        #: Whether it has a context of asynchronous I/O. A transfer that was begun before its pages
        #: are armed fills them afterwards, unseen; nothing tells when it is over.
        self._is_asynchronous = False
        #: Where transparent huge pages were before arming, which splits them.
        self._huge: list[RegionArray] = []
        try:
            self._pidfd = os.pidfd_open(pid)
            try:
                self._pagemap = Pagemap(f"{procfs.root}/{pid}/pagemap")
                self._registrar = Registrar(userfaultfd, self._pagemap)
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
        areas = self._areas()
        for area in areas:
            if area.memfd and area not in self._registrar.refused:
                if self._files.written(area):
                    self.give_up(look, area, Unknown.FILE_WRITTEN)
                if rearm:
                    self._files.note(area)
        self._add_changed(look, areas, rearm=rearm)
        # After all of them: what moves meanwhile loses its registration, and is found here.
        for group in groups(areas):
            look.missing.update(self._registrar.unwatched(group))
        for area in areas:
            if area in self._registrar.refused:
                look.missing.discard(area)
                self.give_up(look, area, Unknown.REFUSED)
            elif not self._registrar.is_plain(area):
                look.missing.add(area)
        look.seen.update(areas)
        look.seen -= look.missing

    def settle(self, look: Look, *, until_s: float, anew: bool = False) -> None:
        """Register the areas that are not; the process must stand still.

        Args:
            look: The look so far.
            until_s: When the process may run again, on CLOCK_MONOTONIC: what is not registered by
                then has to wait.
            anew: Take all areas as new, those that are registered too.
        """
        self._registrar.register_missing(self._areas(), look, until_s=until_s, anew=anew)

    def finish(self, look: Look, *, rearm: bool = True) -> None:
        """Look at what `settle` registered, and note what is missing for good."""
        self._add_changed(look, look.again, rearm=rearm)
        refused = look.fresh & self._registrar.refused
        for area in refused:
            self.give_up(look, area, Unknown.REFUSED)
        for stretch in stretches(sorted(look.fresh - refused, key=_start)):
            self._welcome(look, joined(stretch))
        for area in look.missing - look.fresh:
            # What is not there any more can only have been looked for in vain.
            if self._registrar.is_plain(area) or not look.settled:
                self.give_up(look, area, Unknown.UNREGISTERED)
        if self._is_asynchronous:
            self.distrust(look, Unknown.ASYNCHRONOUS)

    def give_up(self, look: Look, area: Area, why: Unknown) -> None:
        """Note all of an area that may hold something as of unknown state."""
        if area.kind in _SHARED or self._registrar.is_plain(area):
            look.add(to_runs(populated(self._pagemap, area), area.kind, why))
        else:
            whole = np.array([(area.start, area.end, 0)], np.uint64)
            look.add(to_runs(whole, area.kind, why))

    def distrust(self, look: Look, why: Unknown) -> None:
        """Note all of the process as of unknown state."""
        for area in self._areas():
            self.give_up(look, area, why)

    def expose(self, start: int, end: int) -> None:
        """Take the protection of a registered range back: its pages count as written."""
        self._userfaultfd.unprotect(start, end)

    def mappings(self, look: Look) -> tuple[int, int]:
        """Return how many areas are registered after a look, and the bytes of those refused."""
        known = look.seen | look.fresh
        refused = known & self._registrar.refused
        return len(known) - len(refused), sum(area.end - area.start for area in refused)

    def disarm(self, collapse_until_s: float) -> None:
        """Disarm it and give it back the huge pages that it had. `close` is still due.

        Args:
            collapse_until_s: When to leave the rest to the kernel's own khugepaged, on
                CLOCK_MONOTONIC.
        """
        self._userfaultfd.close()
        for regions in self._huge:
            ranges = [(start, end) for start, end, _ in regions.tolist()]
            for first in range(0, len(ranges), _COLLAPSE_BATCH):
                if time.monotonic() >= collapse_until_s:
                    return
                # Ranges that are gone, or a kernel that cannot: it was an offer.
                with contextlib.suppress(OSError):
                    collapse_huge(self._pidfd, ranges[first : first + _COLLAPSE_BATCH])

    def close(self) -> None:
        """Disarm it; it runs on."""
        self._userfaultfd.close()
        self._pagemap.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _areas(self) -> tuple[Area, ...]:
        mappings = self._procfs.maps(self.pid)
        # Where the kernel put it is random anew for each program that is executed.
        program = tuple(mapping.start for mapping in mappings if mapping.path == "[vdso]")
        if self._program is None:
            self._program = program
        if not mappings or program != self._program:
            raise ProcessLookupError(errno.ESRCH, f"pid {self.pid} runs another program")
        self._is_asynchronous = any(mapping.path.startswith("/[aio]") for mapping in mappings)
        return areas_of(mappings)

    def _add_changed(self, look: Look, areas: Sequence[Area], *, rearm: bool) -> None:
        for group in groups(areas):
            kind = group[0].kind
            for start, end, area in spans(group, self._sample):
                if area is None:
                    look.add(changed(self._pagemap, kind, start, end, rearm=rearm))
                    continue
                look.count.add_area(area.end - area.start)
                for first, after in sampled_pieces(area.start, area.end, self._sample) or ():
                    runs = changed(self._pagemap, kind, first, after, rearm=rearm)
                    look.runs.append(runs)
                    look.count.add_piece(after - first, solid_pages(runs))

    def _welcome(self, look: Look, area: Area) -> None:
        """Arm an area that was just registered: all that is populated in it is new."""
        if area.memfd:
            self._files.note(area)
        if stale(self._pagemap, area):
            try:
                self._userfaultfd.unprotect(area.start, area.end)
            except OSError:
                # It has changed again meanwhile: some of it is not registered any more.
                self.give_up(look, area, Unknown.UNREGISTERED)
                return
        regions = populated(self._pagemap, area)
        if area.kind is MemoryKind.PRIVATE and regions.size:
            huge = regions[(regions[:, 2] & _HUGE) != 0]
            if huge.size:
                self._huge.append(huge)
        pieces = sampled_pieces(area.start, area.end, self._sample)
        armed = [
            changed(self._pagemap, area.kind, start, end, rearm=True)
            for start, end in pieces or ((area.start, area.end),)
        ]
        if area.kind in _SHARED:
            # Before arming, holes too count as written.
            for runs in armed:
                look.add(runs[(runs["state"] & _THERE) != 0])
            look.add(to_runs(regions, area.kind, Unknown.UNSEEN))
        else:
            look.add(to_runs(regions, area.kind))
            # What was populated between the two questions is in the second answer.
            look.runs.extend(armed)
