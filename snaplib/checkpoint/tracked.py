"""A dump that builds upon what was copied ahead.

Of every page that CRIU speaks of, the log has an up to date copy, or gets one now: from CRIU, or from
us, who read it while the task stands still.  Which pages are up to date is what our own tracker says
at the moment of the freeze.  CRIU's opinion only saves work: where it knows by itself which pages
have not changed it leaves them out, and elsewhere it sends them and they are thrown away.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import attrs

from snaplib.checkpoint.shimproof import trust_soft_dirty, trusted_shim
from snaplib.criu import Criu, write_bare_parent
from snaplib.criu.pagemap import PAGE_BYTES, PE_PARENT, PE_PRESENT
from snaplib.errors import ShimUnusable
from snaplib.store import PageLogWriter, SnapshotWriter, Space
from snaplib.track import Basis
from snaplib.warm import FinalCopy, WarmCopy

__all__ = ["TrackedDump", "TrackedSink"]

#: Pages that are thrown away go here, a cache's worth at a time.
_SCRATCH_BYTES = 1 << 20


class TrackedSink:
    """Declares what CRIU speaks of, and keeps of what it sends what the log does not have.

    Args:
        coming: The snapshot whose page log that is; there before the first page is.
    """

    def __init__(self, coming: Future[SnapshotWriter]) -> None:
        self._coming = coming
        self._scratch = memoryview(bytearray(_SCRATCH_BYTES))
        #: The parts of a run that are to come, the next one last: its arguments, and whether the log
        #: has it.
        self._parts: list[tuple[int, int, bool]] = []
        self._space = Space(0, 0)
        self._flags = 0
        self._left = 0
        self._wanted = False
        self.final: FinalCopy | None = None
        #: Pages that came and were kept.
        self.kept_pages = 0

    @property
    def _log(self) -> PageLogWriter:
        return self._coming.result().pages

    def run(self, space: Space, vaddr: int, pages: int, flags: int) -> None:
        """Declare where the next ``pages`` pages belong."""
        assert self.final is not None
        self._space, self._flags = space, flags
        self._parts = [*self.final.parts(space, vaddr, pages)][::-1]
        self._next_part()

    def _next_part(self) -> None:
        if not self._parts:
            return
        vaddr, pages, known = self._parts.pop()
        self._left = pages * PAGE_BYTES
        self._wanted = not known
        if known:
            self._log.hole(self._space, vaddr, pages, self._flags)
        else:
            self._log.run(self._space, vaddr, pages, self._flags)
            self.kept_pages += pages

    def hole(self, space: Space, vaddr: int, pages: int, flags: int) -> None:
        """Declare pages that CRIU leaves out."""
        self._log.hole(space, vaddr, pages, flags & ~PE_PARENT | PE_PRESENT)

    def reserve(self, limit: int) -> memoryview:
        """Give room for at most ``limit`` of the declared bytes."""
        limit = min(limit, self._left)
        return self._log.reserve(limit) if self._wanted else self._scratch[:limit]

    def filled(self, count: int) -> None:
        """Say that ``count`` bytes were put into what was reserved."""
        if self._wanted:
            self._log.filled(count)
        self._left -= count
        if not self._left:
            self._next_part()


@attrs.define
class TrackedDump:
    """What a dump does differently when pages were copied ahead.

    Attributes:
        warm: The copies.
        coming: The snapshot they are going to be of.
        environment: What CRIU needs in its environment.
        mode: ``left-out`` where CRIU leaves out what did not change, ``thrown-away`` where it cannot.
        reason: Why it cannot; empty where it can.
        sink: Where the page server puts what comes.
    """

    warm: WarmCopy
    coming: Future[SnapshotWriter]
    environment: Mapping[str, str]
    mode: str
    reason: str
    sink: TrackedSink
    _missing_pages: int = 0

    @classmethod
    def prepare(cls, warm: WarmCopy, criu: Criu) -> TrackedDump:
        """Get everything ready while the task still runs; the store may still be at it afterwards.

        Args:
            warm: What was copied ahead; it is `ready`.
            criu: The CRIU that takes the dump.
        """
        environment: Mapping[str, str] = {}
        reason = ""
        try:
            if warm.basis is Basis.WRITE_PROTECT:
                environment = trusted_shim(criu).environment()
            else:
                trust_soft_dirty(criu)
        except ShimUnusable as error:
            reason = error.message
        coming = warm.prepare()
        mode = "thrown-away" if reason else "left-out"
        return cls(warm, coming, environment, mode, reason, TrackedSink(coming))

    @property
    def leaves_out(self) -> bool:
        """Whether CRIU leaves out what did not change."""
        return not self.reason

    def ask(self, opts: Any, images: Path) -> None:
        """Add to a request what makes CRIU leave pages out."""
        if self.leaves_out:
            opts.track_mem = True
            opts.parent_img = write_bare_parent(images)

    def frozen(self) -> None:
        """Find out what has changed, and begin to copy it: the task stands still."""
        self.sink.final = self.warm.freeze()

    def complete(self, timeout_s: float) -> None:
        """Make sure that every page is there, while the task still stands still.

        Raises:
            CopyFailed: One is not.
            StoreError: The store failed.
        """
        assert self.sink.final is not None
        self._missing_pages = self.sink.final.finish(timeout_s)

    @property
    def taken_bytes(self) -> int:
        """Bytes of pages that were taken now, and not copied ahead."""
        assert self.sink.final is not None
        pages = self.sink.final.left.pages + self.sink.kept_pages + self._missing_pages
        return pages * PAGE_BYTES

    def figures(self) -> dict[str, Any]:
        """Return what the manifest says of it."""
        return {"unchanged": self.mode, "final_bytes": self.taken_bytes}
