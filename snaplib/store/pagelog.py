"""The page log's writer: copies of a task's pages, and which of them a snapshot is made of.

Pages come in from several sides.  Warm copies are taken while the task runs, round after round, and
a page that the task has changed since is forgotten until it is copied anew.  A dump declares which
pages there are: those whose bytes come with it, and those that are to be had from the log.  What is
declared becomes the index, and must all be there.
"""

from __future__ import annotations

import threading
from array import array
from typing import TYPE_CHECKING

import attrs
import numpy as np
import numpy.typing as npt

from snaplib.errors import UsageError
from snaplib.store.blocks import BlockFinder, Blocks
from snaplib.store.feed import Feed
from snaplib.store.framewriter import FrameWriter
from snaplib.store.loggedpages import LoggedPages, frames_in
from snaplib.store.logoptions import PageLogOptions
from snaplib.store.numbering import Numbering
from snaplib.store.places import frame_of
from snaplib.store.runs import RunSet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from snaplib.store.balance import CodecFigures
    from snaplib.store.index import Index, Space
    from snaplib.store.segments import SegmentWriter

__all__ = ["PageLogWriter"]


class PageLogWriter:
    """Writes one page log.

    Declaring, and the pages that come with it, are for one thread; `feed`s for one thread each; the
    rest may be called from any.

    Args:
        segments: Where frames go.
        options: How to write.
        before: What there is already; its segments come before the new ones.
    """

    def __init__(
        self,
        segments: SegmentWriter,
        options: PageLogOptions | None = None,
        before: LoggedPages | None = None,
    ) -> None:
        before = before or LoggedPages()
        self._frames = FrameWriter(segments, options or PageLogOptions(), before.frames)
        # What is in use already cannot be found once more.
        self._finder = BlockFinder(before.blocks, find=not len(before.places))
        #: Of what `finish` has returned, their places are positions.
        self._finished = Blocks()
        self._feeds: list[Feed] = []
        self._feed = self.feed()
        #: Rows of what is declared: number of the first page, pages, flags.
        self._declared = array("Q")
        self._pages = 0
        self._numbering = Numbering(before.spaces)
        #: Guards what follows.
        self._lock = threading.Lock()
        self._places = before.places

    @property
    def pages(self) -> int:
        """How many pages with bytes have been declared so far."""
        return self._pages

    @property
    def codec_figures(self) -> CodecFigures:
        """What the codec has done so far."""
        return self._frames.codec_figures

    def run(self, space: Space, vaddr: int, pages: int, flags: int) -> None:
        """Declare where the next ``pages`` pages belong; their bytes come through `reserve` and
        `filled`.

        Args:
            space: The space they are in.
            vaddr: The address of the first, a multiple of the page size.
            pages: How many.
            flags: Kept as they are.
        """
        self._feed.run(self._declare(space, vaddr, pages, flags), pages)
        self._pages += pages

    def hole(self, space: Space, vaddr: int, pages: int, flags: int) -> None:
        """Declare pages whose bytes do not come, because the log has them, or will have them before
        it is finished."""
        self._declare(space, vaddr, pages, flags)

    def _declare(self, space: Space, vaddr: int, pages: int, flags: int) -> int:
        if self._feed.owed_bytes:
            raise UsageError(f"{self._feed.owed_bytes} bytes of the run before are missing")
        first = self.page_number(space, vaddr, pages)
        self._declared.extend((first, pages, flags))
        return first

    def page_number(self, space: Space, vaddr: int, pages: int = 1) -> int:
        """Return the number of a page in this log.

        Args:
            space: The space it is in.
            vaddr: Its address.
            pages: How many pages from there are to be numbered.
        """
        return self._numbering.number(space, vaddr, pages)

    def pages_of(self, space: Space) -> RunSet:
        """Return the numbers of all pages that a space can have."""
        return self._numbering.pages_of(space)

    def spaces(self) -> tuple[Space, ...]:
        """Return the spaces that pages have been numbered of."""
        return self._numbering.spaces()

    def located(self, number: int) -> tuple[Space, int]:
        """Return the space and the address of a page, given its number."""
        return self._numbering.located(number)

    def reserve(self, limit: int) -> memoryview:
        """Give room for bytes of the last run that was declared; see `Feed.reserve`."""
        return self._feed.reserve(limit)

    def filled(self, count: int) -> None:
        """Say that bytes are there; see `Feed.filled`."""
        self._feed.filled(count)

    def feed(self) -> Feed:
        """Return a new way into the log, for one thread."""
        feed = Feed(self._frames, self._finder)
        self._feeds.append(feed)
        return feed

    def release(self, feed: Feed) -> None:
        """Close a feed; what came through it and was not taken is lost."""
        feed.close()
        self._feeds.remove(feed)

    def take(self, feed: Feed, stopped: Callable[[], bool] | None = None) -> RunSet:
        """Lay what came through a feed over what the log has; it may still be on its way to the store.

        Args:
            feed: The feed.
            stopped: Asked while nobody takes its last frame whether to stop waiting for that.

        Returns:
            Which pages came, by their numbers.

        Raises:
            StoreError: It could not be stored.
        """
        newer = feed.flush(stopped)
        with self._lock:
            self._places = self._places.under(newer)
        return newer.covered()

    def forget(self, pages: RunSet) -> None:
        """Forget copies, given the pages' numbers: the task has changed these pages."""
        with self._lock:
            self._places = self._places.without(pages)

    def covered(self) -> RunSet:
        """Return the numbers of all pages that the log has."""
        with self._lock:
            return self._places.covered()

    def declared(self) -> RunSet:
        """Return the numbers of all pages that have been declared."""
        rows = self._declared_rows()
        return RunSet.of(rows[:, 0], rows[:, 0] + rows[:, 1])

    def _declared_rows(self) -> npt.NDArray[np.uint64]:
        return np.array(self._declared, np.uint64).reshape(-1, 3)

    def missing(self) -> RunSet:
        """Return the numbers of the pages that have been declared and are not in the log; all that
        came with declarations is taken in before."""
        self.take(self._feed)
        return self.declared() - self.covered()

    @property
    def failed(self) -> bool:
        """Whether something could not be stored."""
        return self._frames.failed

    def retract(self, *, salvage: bool = False) -> RunSet:
        """Take back what has been declared; the copies stay.

        Args:
            salvage: Go on after a failure, with the copies in segments that are durable; no other
                feed may be open.

        Returns:
            The numbers of the pages whose copies are lost.
        """
        self.release(self._feed)
        lost = RunSet.of([], [])
        if salvage:
            frames = self._frames.salvage()
            with self._lock:
                places = self._places
            self._finder.drop(frames)
            gone = frames[frame_of(places.places)]
            lost = RunSet.of(places.begins[gone], places.ends[gone])
            self.forget(lost)
        self._feed = self.feed()
        self._declared = array("Q")
        self._pages = 0
        return lost

    def drain(self, stopped: Callable[[], bool] | None = None) -> bool:
        """Wait until everything that came is stored; the segments are not durable yet.

        Args:
            stopped: Asked now and then whether to stop waiting; it must return at once.

        Returns:
            Whether it is; if not, it is stored later.

        Raises:
            StoreError: Something could not be stored.
        """
        return self._frames.drain(stopped)

    def halted(self) -> bool:
        """Return whether the store has had something to do for long, and done nothing of it."""
        return self._frames.halted()

    def rest(self) -> None:
        """Give memory back until more pages come."""
        self._frames.rest()

    def set_background(self, *, background: bool) -> None:
        """Give way to everything else on this machine, or not; what is under way goes on.

        Raises:
            StoreError: What came before could not be stored.
        """
        self._frames.set_background(background=background)

    def live_bytes(self, segments: int) -> npt.NDArray[np.float64]:
        """Return how many stored bytes of each segment are of pages that the log still has.

        Args:
            segments: How many segments there are.
        """
        return self._logged().live_bytes(segments)

    def give_up(self, segments: Sequence[int]) -> None:
        """Let nothing that comes from now on be in some segments."""
        self._frames.forget(frozenset(segments))
        self._finder.hide(frames_in(self._frames.frames(), segments))

    def pages_in(self, segments: Sequence[int]) -> RunSet:
        """Return the numbers of the pages that are in some segments."""
        return self._logged().pages_in(segments)

    @property
    def found_pages(self) -> int:
        """How many pages came that earlier snapshots have."""
        return self._finder.found_pages

    @property
    def blocks(self) -> Blocks:
        """What the index that `finish` has returned has of blocks; their places are positions in its sequence."""
        return self._finished

    def content(self) -> LoggedPages:
        """Return what the log has; everything that came is stored by then."""
        return attrs.evolve(self._logged(), blocks=self._finder.all())

    def _logged(self) -> LoggedPages:
        """Return the same without what is known by its content."""
        self.drain()
        with self._lock:
            return LoggedPages(self._numbering.spaces(), self._places, self._frames.frames())

    def finish(self) -> Index:
        """Store what is left, wait for the workers and return the index of what was declared; the
        segments are not yet durable.

        Raises:
            UsageError: Pages that were declared are not in the log, or were declared twice.
            StoreError: Something could not be stored.
        """
        self.take(self._feed)
        index, self._finished = self.content().index(self._declared_rows())
        return index

    def close(self) -> None:
        """Stop, and wait for the threads; may be called again and after `finish`."""
        for feed in self._feeds:
            feed.close()
        self._frames.close()
