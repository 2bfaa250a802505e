"""What a task is doing, live: its memory and how fast it changes, its descriptors, its sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snaplib.late import late
from snaplib.observe.ages import DirtyBasis, PageAges
from snaplib.observe.armed import Arm
from snaplib.observe.descriptors import (
    DESCRIPTOR_DTYPE,
    DescriptorKind,
    DescriptorTable,
    OpenDescriptor,
)
from snaplib.observe.memory import Memory
from snaplib.observe.profile import (
    FaultCounts,
    Losses,
    Member,
    Profile,
    TreeCounts,
    TreeEvent,
)
from snaplib.observe.sockets import SOCKET_DTYPE, OpenSocket, SocketTable
from snaplib.observe.watch import Watch

if TYPE_CHECKING:
    from snaplib.observe.trace import Trace, TraceWriter

__all__ = [
    "DESCRIPTOR_DTYPE",
    "SOCKET_DTYPE",
    "Arm",
    "DescriptorKind",
    "DescriptorTable",
    "DirtyBasis",
    "FaultCounts",
    "Losses",
    "Member",
    "Memory",
    "OpenDescriptor",
    "OpenSocket",
    "PageAges",
    "Profile",
    "SocketTable",
    "Trace",
    "TraceWriter",
    "TreeCounts",
    "TreeEvent",
    "Watch",
]


#: Who watches for days without recording does without a compressor.
__getattr__, __dir__ = late(__name__, {"Trace": ".trace", "TraceWriter": ".trace"})
