"""What a watch needs of a tracker; those of `snaplib.track` have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["ArmedReport", "Estimated", "PageTracker", "ProcessPages", "ScanReport"]


class ProcessPages(Protocol):
    """The pages of one process in a scan."""

    @property
    def pid(self) -> int:
        """The process."""
        ...

    @property
    def runs(self) -> npt.NDArray[np.void]:
        """Pages seen to change; fields ``start`` (address), ``pages`` and ``kind``; ascending."""
        ...

    @property
    def untracked(self) -> npt.NDArray[np.void]:
        """Pages that may have changed unseen, in the same form."""
        ...


class Estimated(Protocol):
    """A number of pages."""

    @property
    def pages(self) -> float:
        """How many."""
        ...


class ScanReport(Protocol):
    """What changed between two scans."""

    @property
    def time_s(self) -> float:
        """When the scan began (CLOCK_MONOTONIC)."""
        ...

    @property
    def since_s(self) -> float:
        """When the interval it reports on began."""
        ...

    @property
    def frozen_s(self) -> float:
        """For how long the task stood still for it."""
        ...

    @property
    def basis(self) -> Any:
        """What it rests on; its ``value`` is ``sampled`` where only some memory is armed."""
        ...

    @property
    def processes(self) -> Sequence[ProcessPages]:
        """A record for each process."""
        ...

    @property
    def estimate(self) -> Estimated:
        """Changed pages of the whole task; of a sample extrapolated."""
        ...

    @property
    def untracked_pages(self) -> int:
        """Pages that may have changed unseen."""
        ...


class ArmedReport(Protocol):
    """What came of arming."""

    @property
    def time_s(self) -> float:
        """When writes began to be seen."""
        ...

    @property
    def frozen_s(self) -> float:
        """For how long the task stood still for it."""
        ...

    @property
    def failed(self) -> Sequence[tuple[int, str]]:
        """Processes that could not be armed, and why."""
        ...


class PageTracker(Protocol):
    """Tells which pages of a task changed."""

    @property
    def basis(self) -> Any:
        """What its numbers rest on; its ``value`` is ``none`` where nothing is tracked."""
        ...

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is no better one."""
        ...

    def arm(self) -> ArmedReport:
        """Begin."""
        ...

    def scan(self) -> ScanReport:
        """Return what changed since the last scan, and begin a new interval."""
        ...

    def close(self) -> None:
        """Detach from the task."""
        ...
