"""Which pages of a process may come later, and which must be there from the beginning."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from snaplib.checkpoint.parts import split_parts
from snaplib.criu.pagemap import ENTRY_DTYPE, PAGE_BYTES, PE_LAZY, PE_PRESENT
from snaplib.store import Index, Space

__all__ = ["hot_frames", "split_runs"]

#: A lazy entry is no longer than a frame.
_MOST_PAGES = np.uint64(1024)
#: Frames that are held for a task from the beginning: 16 MiB.
_HOT_FRAMES = 4


def split_runs(
    index: Index, space: Space, lazy: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void]]:
    """Split the runs of a space at the borders of lazy memory.

    Args:
        index: The snapshot's index, without holes.
        space: The process.
        lazy: uint64, shape (n, 2): begins and ends of the addresses that may come later, ascending.

    Returns:
        The entries of CRIU's pagemap image, ENTRY_DTYPE, and the runs, RUN, whose pages must be in its pages image,
        both in the order of addresses.
    """
    parts, is_lazy = split_parts(index.runs_of(space), lazy)
    entries = np.empty(len(parts), ENTRY_DTYPE)
    entries["vaddr"], entries["pages"] = parts["vaddr"], parts["pages"]
    entries["flags"] = np.where(is_lazy, PE_LAZY, PE_PRESENT)
    return _resized(entries), parts[~is_lazy]


def hot_frames(index: Index) -> list[int]:
    """Return the frames that a task is likely to want first.

    A log is written in the order of time: what was copied last is what the task had changed last.  Where all of it was
    copied at once, the last addresses were, which are those of libraries and stacks.

    Args:
        index: The snapshot's index.

    Returns:
        The last few frames that hold pages which are still good, none of zeros, the last one first.
    """
    used = np.unique(index.pieces(index.runs)["frame"])
    stored = used[index.frames["stored_bytes"][used] > 0]
    last: list[int] = stored[::-1][:_HOT_FRAMES].tolist()
    return last


def _resized(entries: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Join neighbours of one kind, and cut what is lazy into pieces that the daemon has room for.

    It allocates the largest entry in one piece (CRIU: criu/uffd.c, collect_iovs), and asks for no more at once.
    """
    if not len(entries):
        return entries
    ends = entries["vaddr"] + entries["pages"] * np.uint64(PAGE_BYTES)
    breaks = np.flatnonzero(
        (entries["vaddr"][1:] != ends[:-1]) | (entries["flags"][1:] != entries["flags"][:-1])
    )
    firsts = np.concatenate(([0], breaks + 1))
    pages = np.add.reduceat(entries["pages"], firsts)
    joined = entries[firsts]
    joined["pages"] = pages
    most = np.where(joined["flags"] == PE_LAZY, _MOST_PAGES, pages)
    counts = ((pages + most - np.uint64(1)) // most).astype(np.intp)
    cut = np.repeat(joined, counts)
    place = np.arange(len(cut)) - np.repeat(np.cumsum(counts) - counts, counts)
    done = place.astype(np.uint64) * np.repeat(most, counts)
    cut["vaddr"] += done * np.uint64(PAGE_BYTES)
    cut["pages"] = np.minimum(np.repeat(most, counts), np.repeat(pages, counts) - done)
    return cut
