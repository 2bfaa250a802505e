"""Wear: of which segments so little is needed that what is left is better stored anew."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["MOST_SEGMENTS", "worn"]

#: A segment of which a smaller share is needed is given up.
_LEAST_LIVE = 0.4
#: More segments than this are not kept for one snapshot.
MOST_SEGMENTS = 96


def worn(
    live_bytes: npt.NDArray[np.float64],
    size_bytes: npt.NDArray[np.float64],
    complete: npt.NDArray[np.bool_],
) -> npt.NDArray[np.int64]:
    """Return the numbers of segments that should be given up: those of which little is needed, and where there are very
    many those of which the least is.

    Args:
        live_bytes: Shape (n,): how much of each is needed; of which nothing is, those are not meant.
        size_bytes: Shape (n,): how large each is.
        complete: Shape (n,): which can be judged; the others are still being written, or nobody knows yet.
    """
    kept = complete & (live_bytes > 0)
    chosen = kept & (live_bytes < _LEAST_LIVE * size_bytes)
    rest = np.flatnonzero(kept & ~chosen)
    if len(rest) > MOST_SEGMENTS:
        fewest = rest[np.argsort(live_bytes[rest], kind="stable")]
        chosen[fewest[: len(rest) - MOST_SEGMENTS * 3 // 4]] = True
    return np.flatnonzero(chosen)
