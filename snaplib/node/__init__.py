"""Many tasks on one node: they share its window, its disk and its uplink, and one plan decides who is saved when."""

from __future__ import annotations

from snaplib.node.plan import Contender, SharedPlan, Slot, shared_plan
from snaplib.node.registry import Entry, Registry
from snaplib.node.resident import resident_bytes
from snaplib.node.turn import Turn, Waiting

__all__ = [
    "Contender",
    "Entry",
    "Registry",
    "SharedPlan",
    "Slot",
    "Turn",
    "Waiting",
    "resident_bytes",
    "shared_plan",
]
