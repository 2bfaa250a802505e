"""Which pages of a task changed: trackers, all with one interface."""

from __future__ import annotations

from snaplib.track.choose import open_tracker
from snaplib.track.records import (
    ArmReport,
    Basis,
    DirtyScan,
    Estimate,
    MemoryKind,
    ProcessScan,
    Unknown,
)
from snaplib.track.runs import PAGE_BYTES, RUN_DTYPE, RunArray
from snaplib.track.softdirty import SoftDirty
from snaplib.track.tracker import CannotTrack, TrackableTask, Tracker
from snaplib.track.untracked import Untracked
from snaplib.track.writeprotect import WriteProtect

__all__ = [
    "PAGE_BYTES",
    "RUN_DTYPE",
    "ArmReport",
    "Basis",
    "CannotTrack",
    "DirtyScan",
    "Estimate",
    "MemoryKind",
    "ProcessScan",
    "RunArray",
    "SoftDirty",
    "TrackableTask",
    "Tracker",
    "Unknown",
    "Untracked",
    "WriteProtect",
    "open_tracker",
]
