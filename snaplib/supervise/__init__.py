"""Run or resume: the main job, and the life of the task it looks after."""

from __future__ import annotations

from snaplib.supervise.savecontext import SaveContext
from snaplib.supervise.saver import Expected, FullDump, Saver, SaverFactory
from snaplib.supervise.settings import ON_RESTORE_FAILURE
from snaplib.supervise.states import MOVES, State
from snaplib.supervise.supervisor import Supervisor
from snaplib.supervise.warmsaver import MAX_OVERHEAD_PERCENT, WarmSaver, warm_saver

__all__ = [
    "MAX_OVERHEAD_PERCENT",
    "MOVES",
    "ON_RESTORE_FAILURE",
    "Expected",
    "FullDump",
    "SaveContext",
    "Saver",
    "SaverFactory",
    "State",
    "Supervisor",
    "WarmSaver",
    "warm_saver",
]
