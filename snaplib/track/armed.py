"""One process whose pages are write-protected, so that its next write to each is seen."""

from __future__ import annotations

import contextlib
import errno
import itertools
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
from snaplib.track.runs import PAGE_BYTES
from snaplib.track.sampling import sampled_pieces
from snaplib.track.states import changed, populated, solid_pages, stale, to_runs, unwatched

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

#: What REGISTER says of mappings that cannot be tracked: droppable or a device's; a file opened for
#: reading only; another userfaultfd's.
_REFUSALS = frozenset({errno.EINVAL, errno.EPERM, errno.EBUSY})

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
        #: Areas the kernel would not track, and mappings of files that are no device's.
        self._refused: set[Area] = set()
        self._plain: set[Area] = set()
        self._files = FileTimes(procfs, pid, members)
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
        areas = self._areas()
        for area in areas:
            if area.memfd and area not in self._refused:
                if self._files.written(area):
                    self.give_up(look, area, Unknown.FILE_WRITTEN)
                if rearm:
                    self._files.note(area)
        self._add_changed(look, areas, rearm=rearm)
        # After all of them: what moves meanwhile loses its registration, and is found here.
        for group in groups(areas):
            look.missing.update(self._unwatched(group))
        for area in areas:
            if area in self._refused:
                look.missing.discard(area)
                self.give_up(look, area, Unknown.REFUSED)
            elif not self._is_plain(area):
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
        areas = self._areas()
        chosen = bytearray(len(areas))
        for index, area in enumerate(areas):
            if area in look.seen:
                continue
            if not self._is_plain(area):
                self._refused.add(area)
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

    def finish(self, look: Look, *, rearm: bool = True) -> None:
        """Look at what `settle` registered, and note what is missing for good."""
        self._add_changed(look, look.again, rearm=rearm)
        refused = look.fresh & self._refused
        for area in refused:
            self.give_up(look, area, Unknown.REFUSED)
        for stretch in stretches(sorted(look.fresh - refused, key=_start)):
            self._welcome(look, joined(stretch))
        for area in look.missing - look.fresh:
            # What is not there any more can only have been looked for in vain.
            if self._is_plain(area) or not look.settled:
                self.give_up(look, area, Unknown.UNREGISTERED)

    def give_up(self, look: Look, area: Area, why: Unknown) -> None:
        """Note all of an area that may hold something as of unknown state."""
        if area.kind in _SHARED or self._is_plain(area):
            look.add(to_runs(populated(self._pagemap, area), area.kind, why))
        else:
            whole = np.array([(area.start, area.end, 0)], np.uint64)
            look.add(to_runs(whole, area.kind, why))

    def distrust(self, look: Look) -> None:
        """Note all of the process as of unknown state."""
        for area in self._areas():
            self.give_up(look, area, Unknown.FAILED)

    def mappings(self, look: Look) -> tuple[int, int]:
        """Return how many areas are registered after a look, and the bytes of those refused."""
        known = look.seen | look.fresh
        refused = known & self._refused
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
        return areas_of(mappings)

    def _is_plain(self, area: Area) -> bool:
        """Whether scans look at an area at all: they pass over memory of devices without a word."""
        if area.kind is MemoryKind.PRIVATE or area in self._plain:
            return True
        if not self._pagemap.scan(area.start, area.start + PAGE_BYTES).size:
            return False
        self._plain.add(area)
        return True

    def _add_changed(self, look: Look, areas: Sequence[Area], *, rearm: bool) -> None:
        for group in groups(areas):
            kind = group[0].kind
            for start, end, area in self._spans(group):
                if area is None:
                    look.add(changed(self._pagemap, kind, start, end, rearm=rearm))
                    continue
                look.count.add_area(area.end - area.start)
                for first, after in sampled_pieces(area.start, area.end, self._sample) or ():
                    runs = changed(self._pagemap, kind, first, after, rearm=rearm)
                    look.runs.append(runs)
                    look.count.add_piece(after - first, solid_pages(runs))

    def _spans(self, group: Sequence[Area]) -> Iterable[tuple[int, int, Area | None]]:
        """Yield stretches to scan in one go, and the areas that are sampled by themselves."""
        if self._sample is None:
            yield group[0].start, group[-1].end, None
            return

        def sampled(area: Area) -> bool:
            return sampled_pieces(area.start, area.end, self._sample) is not None

        for by_pieces, some in itertools.groupby(group, key=sampled):
            stretch = list(some)
            if by_pieces:
                yield from ((area.start, area.end, area) for area in stretch)
            else:
                yield stretch[0].start, stretch[-1].end, None

    def _unwatched(self, group: Sequence[Area]) -> Iterable[Area]:
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

    def _can_wait(self, area: Area) -> bool:
        """Whether an area may stay unregistered: libraries without a page of the task's own.

        Registering them would cost the task more faults: the kernel then maps file pages one by
        one, not 16 at a time.
        """
        return (
            area.kind is MemoryKind.PRIVATE_FILE
            and not area.writable
            and not any(self._unwatched([area]))
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
                    if not area.may_join(areas[at - step]) or area in self._refused:
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
                self._refused.add(stretch[0])
            else:
                return all(self._register(look, [area], until_s) for area in stretch)
        if time.monotonic() >= until_s:
            with contextlib.suppress(OSError):
                self._userfaultfd.unregister(stretch[0].start, stretch[-1].end)
            return False
        look.fresh.update(stretch)
        return True
