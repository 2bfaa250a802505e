"""The last copies, of what has changed since the last round, while the task stands still.

CRIU takes its time with what it has to find out about the task; meanwhile the changed pages are
copied here.  CRIU is told that it need not send any page that the log has or is about to have.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from snaplib.errors import StoreError
from snaplib.store import PAGE_BYTES, RunSet
from snaplib.warm.copier import copy_pages
from snaplib.warm.records import CopyFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from snaplib.kernel import ProcFs
    from snaplib.store import PageLogWriter, Space

__all__ = ["FinalCopy"]


class FinalCopy:
    """Copies what is left, in a thread of its own.

    Args:
        log: Returns where to; may take its time.
        procfs: Where the processes are seen.
        pids: The pid of each process as seen there, by that in its own PID namespace.
        settle: Finds out which pages to copy, by their numbers in the log, and which only once CRIU
            is at rest.

    Attributes:
        left: The pages to copy.
        known: All pages that the log has, or will have.
    """

    def __init__(
        self,
        log: Callable[[], PageLogWriter],
        procfs: ProcFs,
        pids: Mapping[int, int],
        settle: Callable[[], tuple[RunSet, RunSet]],
    ) -> None:
        self.left = self.known = self._later = self._tried = RunSet.of([], [])
        self._open_log = log
        self._log: PageLogWriter | None = None
        self._procfs = procfs
        self._pids = pids
        self._settle = settle
        self._settled = threading.Event()
        self._failure: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._copy, name="snaplib-final")
        self._thread.start()

    def _copy(self) -> None:
        try:
            log = self._open_log()
            self.left, self._later = self._settle()
            self.known, self._log = log.covered() | self.left, log
            self._settled.set()
            self._tried = copy_pages(
                log, self._procfs, self._pids, self.left, stopped=self._stop.is_set
            )
        except BaseException as error:  # noqa: BLE001 - raised again by finish()
            self._failure = error
        finally:
            self._settled.set()

    def parts(self, space: Space, vaddr: int, pages: int) -> Iterator[tuple[int, int, bool]]:
        """Yield the parts of a run of pages: address, pages, and whether they are known.

        Raises:
            StoreError: There is nowhere to put any.
        """
        self._settled.wait()
        if self._log is None:
            assert self._failure is not None
            raise self._failure
        first = self._log.page_number(space, vaddr, pages)
        low = int(np.searchsorted(self.known.ends, np.uint64(first), "right"))
        high = int(np.searchsorted(self.known.begins, np.uint64(first + pages), "left"))
        at = first
        for begin, end in zip(
            self.known.begins[low:high].tolist(), self.known.ends[low:high].tolist(), strict=True
        ):
            if begin > at:
                yield vaddr + (at - first) * PAGE_BYTES, begin - at, False
                at = begin
            after = min(end, first + pages)
            yield vaddr + (at - first) * PAGE_BYTES, after - at, True
            at = after
        if at < first + pages:
            yield vaddr + (at - first) * PAGE_BYTES, first + pages - at, False

    def finish(self, timeout_s: float) -> int:
        """Wait for the copies, and copy what turned out to be missing; the task still stands still.

        Args:
            timeout_s: How long to wait.

        Returns:
            How many pages were missing.

        Raises:
            CopyFailed: Some could not be copied.
            StoreError: They could not be stored.
        """
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise CopyFailed(f"the last pages were not copied within {timeout_s:g} s")
        if self._failure is not None:
            raise self._failure
        assert self._log is not None
        missing = self._log.missing()
        if missing.pages:
            copy_pages(self._log, self._procfs, self._pids, missing, stopped=self._stop.is_set)
            lost = self._log.missing()
            if lost.pages:
                space, vaddr = self._log.located(int(lost.begins[0]))
                raise CopyFailed(
                    f"{lost.pages} pages are neither in the copy nor can they be read, the first "
                    f"at {vaddr:#x} of process {space.id}"
                )
        return missing.pages

    def end(self) -> RunSet:
        """Stop, and return the pages that were not copied: they are still to be.

        Raises:
            CopyFailed: That is not known.
        """
        self._stop.set()
        self._thread.join()
        if self._log is None:
            # What had changed by the freeze is not noted anywhere.
            raise CopyFailed(f"the last copies did not begin: {self._failure}")
        if isinstance(self._failure, StoreError):
            return self.left | self._later
        if self._failure is not None:
            raise CopyFailed(f"the last copies failed: {self._failure}")
        return (self.left - self._tried) | self._later
