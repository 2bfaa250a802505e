"""Copying a task's memory ahead, while it runs, so that little is left for the last step."""

from __future__ import annotations

from snaplib.warm.finalcopy import FinalCopy
from snaplib.warm.pace import Pace
from snaplib.warm.records import CopyFailed, Round
from snaplib.warm.warmcopy import WarmCopy

__all__ = ["CopyFailed", "FinalCopy", "Pace", "Round", "WarmCopy"]
