"""Where a watch looks: at the kernel with eBPF, or where that is not allowed at /proc."""

from __future__ import annotations

from typing import Literal, Protocol

import attrs

from snaplib.observe.descriptors import DescriptorTable
from snaplib.observe.profile import FaultCounts, Losses, TreeCounts, TreeEvent
from snaplib.observe.sockets import SocketTable

__all__ = ["Look", "Source"]


@attrs.frozen
class Look:
    """What a source saw at one instant; the fields are those of `Profile`.

    Attributes:
        pids: The members, the oldest first; empty when the task has ended.
        faults_by_pid: Page faults of the members.
    """

    pids: tuple[int, ...]
    faults: FaultCounts = attrs.field(factory=FaultCounts)
    faults_by_pid: dict[int, FaultCounts] = attrs.field(factory=dict)
    counts: TreeCounts = attrs.field(factory=TreeCounts)
    events: tuple[TreeEvent, ...] = ()
    descriptors: DescriptorTable = attrs.field(factory=DescriptorTable)
    sockets: SocketTable = attrs.field(factory=SocketTable)
    losses: Losses = attrs.field(factory=Losses)


class Source(Protocol):
    """Looks at a task."""

    @property
    def kind(self) -> Literal["ebpf", "proc"]:
        """What it looks with."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What it cannot see, and why."""
        ...

    def look(self) -> Look:
        """Return what there is to be seen now; it never waits for the task."""
        ...

    def close(self) -> None:
        """Leave nothing behind."""
        ...
