"""The interface of all trackers, and what they need of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

from snaplib.errors import CannotDump

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from snaplib.kernel import ProcFs
    from snaplib.track.records import ArmReport, Basis, DirtyScan

__all__ = ["CannotTrack", "Process", "Stopped", "TrackableTask", "Tracker"]


class CannotTrack(CannotDump):
    """This way of tracking does not work for this task, or on this host."""

    default_hint = "use open_tracker(), which falls back to what works"


class Process(Protocol):
    """What a tracker needs of a member of a task."""

    @property
    def pid(self) -> int:
        """Its pid as this process sees it."""
        ...


class Stopped(Protocol):
    """What a tracker needs to know of a standstill."""

    @property
    def deadline(self) -> float:
        """When the task runs again at the latest, on CLOCK_MONOTONIC."""
        ...


class TrackableTask(Protocol):
    """What a tracker needs of a task; `snaplib.Task` has it."""

    @property
    def pid(self) -> int:
        """Pid of the root process."""
        ...

    @property
    def procfs(self) -> ProcFs:
        """Where its processes are seen."""
        ...

    def members(self) -> Sequence[Process]:
        """Return the processes of the task, parents before children.

        Raises:
            TaskEnded: The root has ended.
        """
        ...

    def frozen(self, deadline_s: float) -> AbstractContextManager[Stopped]:
        """Stop all threads of the task for the length of a ``with`` block.

        Raises:
            TimeoutError: They did not all stop in time, or the block took too long; all run.
        """
        ...


class Tracker(Protocol):
    """Tells which pages of a task changed.

    Use it as a context manager: leaving it detaches from the task. All methods are to be called
    from one thread at a time.
    """

    @property
    def basis(self) -> Basis:
        """What the numbers rest on."""
        ...

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why no better tracker was chosen; sentences, empty for the best."""
        ...

    def arm(self) -> ArmReport:
        """Begin: from now on, writes are seen. Arming again begins anew.

        Raises:
            CannotTrack: Not one process could be armed.
            TaskEnded: The task has ended.
            TimeoutError: The task could not be stopped in time.
        """
        ...

    def scan(
        self, rearm: bool = True, *, still: bool = False, frozen_by_caller: bool = False
    ) -> DirtyScan:
        """Return what changed since the last scan that re-armed, or since `arm`.

        Never claims a page clean that is not: a page, mapping or process whose state is not known
        comes out as `untracked`.

        Args:
            rearm: Begin a new interval. If False, this only looks: the next scan reports these
                pages again, and the task is neither stopped nor changed.
            still: Stop the task for a moment when all is armed again, a millisecond whatever its
                size. Needed before pages are copied on the strength of it: see `DirtyScan.still`,
                which tells whether it worked.
            frozen_by_caller: The task has been stopped already, and stays so until this returns:
                then the answer is exact at this moment.

        Raises:
            TaskEnded: The task has ended.
        """
        ...

    def close(self) -> None:
        """Detach from the task; it runs on as if never tracked. Closing twice does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...
