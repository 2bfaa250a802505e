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
from snaplib.store.framewriter import FrameWriter, PageLogOptions
from snaplib.store.index import FRAME, PAGE_BYTES, RUN, Index, Space
from snaplib.store.places import PLACE_SHIFT, Places, frame_of
from snaplib.store.runs import RunSet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from snaplib.store.balance import CodecFigures
    from snaplib.store.segments import SegmentWriter

__all__ = ["LoggedPages", "PageLogOptions", "PageLogWriter"]

#: Pages of all spaces are numbered together: a space's number, shifted by so many bits, and the
#: page's number in it.  57 bits of address are 45 of page.
_SPACE_SHIFT = 48


@attrs.frozen(eq=False)
class LoggedPages:
    """What a page log holds.

    Attributes:
        spaces: The spaces, in the order of their numbers.
        places: Where the pages lie.
        frames: FRAME, shape (m,): the frames; their segments are numbers of the log's.
        blocks: What of them is known by its content.
    """

    spaces: tuple[Space, ...] = ()
    places: Places = attrs.field(factory=Places.none)
    frames: npt.NDArray[np.void] = attrs.field(factory=lambda: np.empty(0, FRAME))
    blocks: Blocks = attrs.field(factory=Blocks)

    def compacted(self) -> LoggedPages:
        """Return the same without the frames that hold no page any more."""
        live = self.places.pages_of_frames(len(self.frames)) > 0
        numbers = np.where(live, np.cumsum(live) - 1, -1)
        places, blocks = self.places.moved(numbers), self.blocks.moved(numbers)
        return LoggedPages(self.spaces, places, self.frames[live], blocks)


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
        self._lock = threading.Lock()
        self._spaces = list(before.spaces)
        self._numbers = {space: number for number, space in enumerate(self._spaces)}
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
        number = vaddr // PAGE_BYTES
        if pages <= 0 or vaddr % PAGE_BYTES or (number + pages) >> _SPACE_SHIFT:
            raise UsageError(f"no run of whole pages: {pages} pages at {vaddr:#x}")
        with self._lock:
            known = self._numbers.setdefault(space, len(self._spaces))
            if known == len(self._spaces):
                self._spaces.append(space)
        return (known << _SPACE_SHIFT) + number

    def pages_of(self, space: Space) -> RunSet:
        """Return the numbers of all pages that a space can have."""
        first = self.page_number(space, 0)
        return RunSet.of([first], [first + (1 << _SPACE_SHIFT)])

    def spaces(self) -> tuple[Space, ...]:
        """Return the spaces that pages have been numbered of."""
        with self._lock:
            return tuple(self._spaces)

    def located(self, number: int) -> tuple[Space, int]:
        """Return the space and the address of a page, given its number."""
        space, page = divmod(number, 1 << _SPACE_SHIFT)
        return self._spaces[space], page * PAGE_BYTES

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
        self.drain()
        with self._lock:
            places = self._places
        frames = self._frames.frames()
        live = places.pages_of_frames(len(frames)) / np.maximum(frames["pages"], 1)
        weights = live * frames["stored_bytes"]
        return np.bincount(frames["segment"], weights, segments).astype(np.float64)

    def give_up(self, segments: Sequence[int]) -> None:
        """Let nothing that comes from now on be in some segments."""
        given_up = frozenset(segments)
        self._frames.forget(given_up)
        self._finder.hide(self._in(self._frames.frames(), segments))

    def pages_in(self, segments: Sequence[int]) -> RunSet:
        """Return the numbers of the pages that are in some segments."""
        self.drain()
        chosen = self._in(self._frames.frames(), segments)
        with self._lock:
            places = self._places
        inside = chosen[frame_of(places.places)]
        return RunSet.of(places.begins[inside], places.ends[inside])

    @staticmethod
    def _in(frames: npt.NDArray[np.void], segments: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Tell of each frame whether it is in one of some segments."""
        # A table, for numpy.isin brings numpy.ma.
        numbers = frames["segment"].astype(np.int64)
        wanted = np.zeros(1 + max(int(numbers.max(initial=-1)), *segments, -1), np.bool_)
        wanted[np.asarray(segments, np.int64)] = True
        chosen: npt.NDArray[np.bool_] = wanted[numbers] & (frames["stored_bytes"] > 0)
        return chosen

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
        self.drain()
        with self._lock:
            frames, blocks = self._frames.frames(), self._finder.all()
            return LoggedPages(tuple(self._spaces), self._places, frames, blocks)

    def finish(self) -> Index:
        """Store what is left, wait for the workers and return the index of what was declared; the
        segments are not yet durable.

        Raises:
            UsageError: Pages that were declared are not in the log, or were declared twice.
            StoreError: Something could not be stored.
        """
        self.take(self._feed)
        content = self.content()
        rows = self._declared_rows()
        owner, found = content.places.cut(rows[:, 0], rows[:, 0] + rows[:, 1])
        missing = int(rows[:, 1].sum()) - found.pages
        if missing:
            raise UsageError(f"{missing} of the pages that were declared are not in the log")
        index, used = _index(content, found, owner, rows[:, 2])
        problems = index.problems()
        if problems:
            raise UsageError(f"the pages that were declared contradict each other: {problems[0]}")
        numbers = np.full(len(content.frames), -1, np.int64)
        numbers[used] = np.arange(len(used))
        blocks = content.blocks.moved(numbers)
        inside = blocks.places & np.uint64((1 << PLACE_SHIFT) - 1)
        self._finished = Blocks(index.starts[frame_of(blocks.places)] + inside, blocks.digests)
        return index

    def close(self) -> None:
        """Stop, and wait for the threads; may be called again and after `finish`."""
        for feed in self._feeds:
            feed.close()
        self._frames.close()


def _index(
    content: LoggedPages,
    found: Places,
    owner: npt.NDArray[np.int64],
    flags: npt.NDArray[np.uint64],
) -> tuple[Index, npt.NDArray[np.int64]]:
    """Return the index of some pages of a log, and which frames are in it; owner tells the declaration of each run."""
    used, compact = np.unique(frame_of(found.places), return_inverse=True)
    frames = content.frames[used]
    starts = np.cumsum(frames["pages"], dtype=np.uint64) - frames["pages"]
    inside = found.places & np.uint64((1 << PLACE_SHIFT) - 1)
    positions = starts[compact] + inside if len(used) else inside
    lengths = found.ends - found.begins
    # What one declaration says was only cut where a frame ended.
    follows = (owner[1:] == owner[:-1]) & (positions[:-1] + lengths[:-1] == positions[1:])
    first = np.flatnonzero(np.concatenate((np.ones(min(1, len(owner)), np.bool_), ~follows)))
    runs = np.zeros(len(first), RUN)
    if len(first):
        space = (found.begins[first] >> np.uint64(_SPACE_SHIFT)).astype(np.int64)
        page = found.begins[first] & np.uint64((1 << _SPACE_SHIFT) - 1)
        runs["kind"] = np.array([one.kind for one in content.spaces])[space]
        runs["id"] = np.array([one.id for one in content.spaces], np.uint64)[space]
        runs["vaddr"] = page * np.uint64(PAGE_BYTES)
        runs["pages"] = np.add.reduceat(lengths, first)
        runs["flags"] = flags[owner[first]]
        runs["position"] = positions[first]
    return Index.build(runs, frames), used
