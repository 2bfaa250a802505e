"""The page log's reader."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from snaplib.errors import UsageError
from snaplib.store import codec
from snaplib.store.frames import LOCAL_THREADS, FrameReader
from snaplib.store.index import ENTRY, PAGE_BYTES, Index, Space

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snaplib.store.backend import Data, ObjectReader

__all__ = ["PageLogReader", "Use", "as_entries"]

#: Uses one frame: its bytes, good until it returns; of each piece of it that is wanted the number of its run, int64,
#: and how many pages of the run come before, uint64; and the pieces, PIECE.
Use = Callable[
    [memoryview, npt.NDArray[np.int64], npt.NDArray[np.uint64], npt.NDArray[np.void]], None
]


class PageLogReader:
    """Reads one page log; `close` it, or use it as a context manager.

    Args:
        index: Its index.
        open_segment: Opens a segment, given its number.
        name: How to name a segment in errors, given its number.
        threads: How many frames to read at once.
    """

    def __init__(
        self,
        index: Index,
        open_segment: Callable[[int], ObjectReader],
        name: Callable[[int], str] = str,
        threads: int = LOCAL_THREADS,
    ) -> None:
        self.index = index
        self._frames = FrameReader(index, open_segment, name, threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the segments; may be called again."""
        self._frames.close()

    def spaces(self) -> list[Space]:
        """Return the spaces there are pages of, in order."""
        return self.index.spaces()

    def entries(self, space: Space, *, coalesce: bool = False) -> npt.NDArray[np.void]:
        """Return a space's runs in the order of addresses, as they were declared.

        Args:
            space: The space.
            coalesce: Join neighbours with the same flags.

        Returns:
            ENTRY, shape (n,): ``vaddr`` in bytes, ``pages``, ``flags``.
        """
        entries = as_entries(self.index.runs_of(space))
        if coalesce and len(entries):
            ends = entries["vaddr"] + entries["pages"] * np.uint64(PAGE_BYTES)
            breaks = np.flatnonzero(
                (entries["vaddr"][1:] != ends[:-1])
                | (entries["flags"][1:] != entries["flags"][:-1])
            )
            firsts = np.concatenate(([0], breaks + 1))
            pages = np.add.reduceat(entries["pages"], firsts)
            entries = entries[firsts]
            entries["pages"] = pages
        return entries

    def read(self, space: Space, vaddr: int, pages: int) -> bytes:
        """Return the bytes of consecutive pages.

        Raises:
            UsageError: Some of them are not here.
            SnapshotDamaged: The bytes stored are not those that were written.
        """
        runs = self.index.find(space, vaddr, pages)
        if int(runs["pages"].sum()) != pages:
            raise UsageError(
                f"not all of the {pages} pages at {vaddr:#x} of {space} are in the log"
            )
        return b"".join(map(bytes, self._chunks(runs)))

    def copy_to(self, space: Space, fd: int) -> int:
        """Write all pages of a space that are here to a file, in the order of `entries`.

        Args:
            space: The space.
            fd: A descriptor of a file, written to from its position on.

        Returns:
            How many bytes were written.

        Raises:
            SnapshotDamaged: The bytes stored are not those that were written.
            OSError: The descriptor cannot be written to.
        """
        return self.copy_runs(self.index.runs_of(space), fd)

    def copy_runs(self, runs: npt.NDArray[np.void], fd: int) -> int:
        """Write the pages of runs to a file.

        Args:
            runs: RUN, shape (n,), or parts of such; their order is that of the bytes.
            fd: A descriptor, written to from its position on.

        Returns:
            How many bytes were written.

        Raises:
            SnapshotDamaged: The bytes stored are not those that were written.
            OSError: The descriptor cannot be written to.
        """
        pieces = self.index.pieces(runs)
        ends = np.cumsum(pieces["pages"]) * PAGE_BYTES
        begins = ends - pieces["pages"] * PAGE_BYTES
        # Frame by frame: pages that were copied at different times alternate in the order of
        # addresses, and a frame must not be read anew for each of its pages.
        order, numbers, bounds = _by_frame(pieces)
        pieces, begins = pieces[order], begins[order] + os.lseek(fd, 0, os.SEEK_CUR)

        def put(place: int, frame: Data) -> None:
            view = memoryview(frame)
            mine = slice(bounds[place], bounds[place + 1])
            for page, count, begin in zip(
                pieces["first"][mine].tolist(),
                pieces["pages"][mine].tolist(),
                begins[mine].tolist(),
                strict=True,
            ):
                piece = view[page * PAGE_BYTES : (page + count) * PAGE_BYTES]
                rest = piece
                while rest:
                    rest = rest[os.pwrite(fd, rest, begin + len(piece) - len(rest)) :]

        # What the reading threads are at is all that is in memory.
        self._frames.each(numbers, put)
        total = int(ends[-1]) if len(ends) else 0
        os.lseek(fd, total, os.SEEK_CUR)
        return total

    def use_runs(self, runs: npt.NDArray[np.void], use: Use) -> None:
        """Have the pages of runs used by the threads that have read them, a frame at a time; zeros are left out.

        Args:
            runs: RUN, shape (n,), or parts of such.
            use: Called by several threads at a time.

        Raises:
            SnapshotDamaged: The bytes stored are not those that were written.
        """
        run, before, pieces = self.index.pieces_of(runs)
        order, numbers, bounds = _by_frame(pieces)
        run, before, pieces = run[order], before[order], pieces[order]
        zeros = self.index.frames["codec"] == codec.ZERO

        def pass_on(place: int, frame: Data) -> None:
            if not zeros[numbers[place]]:
                mine = slice(bounds[place], bounds[place + 1])
                use(memoryview(frame), run[mine], before[mine], pieces[mine])

        self._frames.each(numbers, pass_on)

    def _chunks(self, runs: npt.NDArray[np.void]) -> Iterator[memoryview]:
        """Yield the bytes of runs, a frame or less at a time, each good until the next."""
        return self._of_frames(self.index.pieces(runs))

    def _of_frames(self, pieces: npt.NDArray[np.void]) -> Iterator[memoryview]:
        # Consecutive pieces of one frame need it only once.
        first = np.ones(len(pieces), np.bool_)
        first[1:] = pieces["frame"][1:] != pieces["frame"][:-1]
        frames = self._frames.stream(pieces["frame"][first].tolist())
        with contextlib.closing(frames):
            view = memoryview(b"")
            for new, begin, count in zip(
                first.tolist(), pieces["first"].tolist(), pieces["pages"].tolist(), strict=True
            ):
                if new:
                    view = memoryview(next(frames))
                yield view[begin * PAGE_BYTES : (begin + count) * PAGE_BYTES]

    @property
    def threads(self) -> int:
        """How many threads are worth having that call `load_frame`."""
        return self._frames.threads

    def frame_room(self) -> memoryview:
        """Return a buffer for `load_frame`."""
        return self._frames.room()

    def load_frame(self, number: int, room: memoryview) -> Data:
        """Return the bytes of a frame, checked, good for as long as nothing else is read into that room; any thread
        may call.

        Raises:
            SnapshotDamaged: The bytes stored are not those that were written.
        """
        return self._frames.load(number, room)

    def frame(self, number: int) -> Data:
        """Return the bytes of a frame, checked; good until the next call.

        Raises:
            SnapshotDamaged: The bytes stored are not those that were written.
        """
        return self._frames.one(number)


def as_entries(runs: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Return runs, RUN, as CRIU's pagemap images have them: ENTRY, shape (n,)."""
    entries = np.empty(len(runs), ENTRY)
    for name in ENTRY.names or ():
        entries[name] = runs[name]
    return entries


def _by_frame(
    pieces: npt.NDArray[np.void],
) -> tuple[npt.NDArray[np.int64], list[int], list[int]]:
    """Return in which order pieces are by frame, the frames, and where in that order the pieces of each begin, with the
    end."""
    order = np.argsort(pieces["frame"], kind="stable")
    numbers, firsts = np.unique(pieces["frame"][order], return_index=True)
    return order, numbers.tolist(), [*firsts.tolist(), len(pieces)]
