"""What a new snapshot may find its pages in: the newest one of the same key, by what is in its blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from snaplib.errors import SnapshotDamaged
from snaplib.store import names
from snaplib.store.codec import ZERO
from snaplib.store.loggedpages import LoggedPages
from snaplib.store.parent import Parent
from snaplib.store.places import Places
from snaplib.store.wear import MOST_SEGMENTS

if TYPE_CHECKING:
    import numpy.typing as npt

    from snaplib.store.index import Index
    from snaplib.store.saved import SnapshotReader

__all__ = ["lent_by"]

#: Segments of which a smaller share is needed are not lent: what comes again of them is stored anew, and they go with
#: the snapshots that need them now. So however long the chain, no more than about as much again is kept for it.
_LEAST_LIVE = 0.5


def lent_by(reader: SnapshotReader) -> Parent | None:
    """Return what of a snapshot's pages can be found by their content; None if nothing can.

    Segments that are lost are not lent.  What is in the others is not read again.

    Args:
        reader: Reads the snapshot.

    Raises:
        SnapshotDamaged: Its index or its blocks are not what was written.
        StoreTooNew: A newer snaplib wrote them.
    """
    snapshot = reader.snapshot
    if names.BLOCKS not in snapshot.objects:
        return None
    index, blocks = reader.pages.index, reader.blocks()
    if int(index.frames["segment"].max(initial=0)) >= max(1, len(snapshot.segments)):
        raise SnapshotDamaged(
            f"the index of snapshot {snapshot.id} has segments that it does not name"
        )
    sizes = np.array([segment.size_bytes for segment in snapshot.segments], np.float64)
    live = _live_bytes(index, len(sizes))
    chosen = (live >= _LEAST_LIVE * sizes) & np.array(reader.segments_present(), np.bool_)
    # The next snapshot is to have room for some of its own.
    most = MOST_SEGMENTS // 2
    if int(chosen.sum()) > most:
        chosen[np.argsort(live, kind="stable")[:-most]] = False
    frames = index.frames
    lent = (
        chosen[frames["segment"]] & (frames["codec"] != ZERO)
        if len(sizes)
        else np.zeros(0, np.bool_)
    )
    if not lent.any():
        return None
    numbers = np.where(lent, np.cumsum(lent) - 1, -1)
    frames = frames[lent].copy()
    frames["segment"] = (np.cumsum(chosen) - 1)[frames["segment"]]
    segments = tuple(one for one, wanted in zip(snapshot.segments, chosen, strict=True) if wanted)
    pages = LoggedPages((), Places.none(), frames, blocks.moved(numbers))
    return Parent(snapshot.id, pages, segments, is_lent=True)


def _live_bytes(index: Index, segments: int) -> npt.NDArray[np.float64]:
    """Return how many stored bytes of each segment are of pages that the index has."""
    pieces = index.pieces(index.runs)
    frames = index.frames
    pages = np.bincount(pieces["frame"], pieces["pages"].astype(np.float64), len(frames))
    share = pages / np.maximum(frames["pages"], 1)
    weights = np.minimum(share, 1) * frames["stored_bytes"]
    return np.bincount(frames["segment"], weights, segments).astype(np.float64)
