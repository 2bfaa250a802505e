"""Choosing a tracker by trying: the best that works for this task on this host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snaplib.track.softdirty import SoftDirty
from snaplib.track.tracker import CannotTrack
from snaplib.track.untracked import Untracked
from snaplib.track.writeprotect import WriteProtect

if TYPE_CHECKING:
    from fractions import Fraction

    from snaplib.track.tracker import TrackableTask, Tracker

__all__ = ["open_tracker"]


def open_tracker(task: TrackableTask, *, sample: Fraction | None = None) -> Tracker:
    """Return the best tracker that works: write protection, soft-dirty bits, or none.

    It is not armed yet; its `reasons` tell why those before it do not work.

    Args:
        task: What to track.
        sample: Where write protection works, arm only this fraction of large mappings, such as
            ``Fraction(1, 8)``: cheaper for the task, and counts become estimates.

    Raises:
        TaskEnded: The task has ended.
    """
    reasons: list[str] = []
    try:
        return WriteProtect(task, sample=sample)
    except CannotTrack as error:
        reasons.append(error.message)
    try:
        return SoftDirty(task, reasons=reasons)
    except CannotTrack as error:
        reasons.append(error.message)
    return Untracked(task, reasons=reasons)
