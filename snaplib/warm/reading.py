"""Reading pages out of a process, for a page log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from snaplib.store import PAGE_BYTES, RunSet

if TYPE_CHECKING:
    import numpy.typing as npt

    from snaplib.kernel.processmemory import MemoryReader

__all__ = ["read_pages"]


def read_pages(memory: MemoryReader, base: int, room: memoryview, pages: RunSet) -> RunSet:
    """Read pages, as many as can be read.

    A page that cannot be read is gone, or was never there: it is left out, and with it what follows
    it in its run.

    Args:
        memory: Of the process.
        base: The number of the page at address 0.
        room: Where to, one page behind the other; as large as all of them.
        pages: Which, by their numbers.

    Returns:
        Those that were read.
    """
    begins, ends = pages.begins, pages.ends
    done = 0
    parts: list[tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]] = []
    while len(begins):
        sizes = (ends - begins) * np.uint64(PAGE_BYTES)
        addresses = (begins - np.uint64(base)) * np.uint64(PAGE_BYTES)
        wanted = int(sizes.sum())
        try:
            got = memory.read(room[done : done + wanted], addresses, sizes) // PAGE_BYTES
        except ProcessLookupError:
            break
        reached = np.cumsum(ends - begins)
        whole = int(np.searchsorted(reached, got, "right"))
        parts.append((begins[:whole], ends[:whole]))
        done += int(reached[whole - 1]) * PAGE_BYTES if whole else 0
        if whole == len(begins):
            break
        # The next run ends somewhere; perhaps only because the process itself may not read it.
        inside = got - (int(reached[whole - 1]) if whole else 0)
        first, after = int(begins[whole]), int(ends[whole])
        more = memory.read_anyway(
            room[done + inside * PAGE_BYTES : done + (after - first) * PAGE_BYTES],
            (first + inside - base) * PAGE_BYTES,
        )
        inside += more // PAGE_BYTES
        if inside:
            parts.append((np.array([first], np.uint64), np.array([first + inside], np.uint64)))
        done += inside * PAGE_BYTES
        begins, ends = begins[whole + 1 :], ends[whole + 1 :]
    if not parts:
        return RunSet(pages.begins[:0], pages.ends[:0])
    return RunSet(
        np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    )
