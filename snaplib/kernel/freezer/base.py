"""What all freezers do: a guardian is told first, and the task runs again in the end."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

from snaplib.errors import DeadlineExceeded, RootRequired, TaskEnded
from snaplib.kernel.guard import Guard

__all__ = ["POLL_S", "Freezer"]

#: How long to wait before it is looked again whether all stands still.
POLL_S = 0.0005


class Freezer(ABC):
    """Freezes one task and thaws it again.

    Attributes:
        kind: ``cgroup-v2``, ``cgroup-v1`` or ``stop``.
        key: What it freezes; two freezers of the same thing have the same.
    """

    kind: str
    key: str

    def __init__(self) -> None:
        self._guardian: Guard | None = None
        self._deadline: float | None = None

    def freeze(self, deadline_s: float) -> float:
        """Stop the task; return when all of it stands still.

        Args:
            deadline_s: The task runs again so many seconds after the first of it was told to stop, whatever happens.
                The guardian is there by then: on a busy machine it takes its time to start.

        Returns:
            When it runs again at the latest, in seconds of ``time.monotonic()``.

        Raises:
            DeadlineExceeded: It did not stand still in time; it runs again.
            TaskEnded: It has ended.
            RootRequired: This process may not stop it.
        """
        if self._deadline is not None:
            raise RuntimeError("the task is frozen already")
        if self._guardian is None or not self._guardian.alive:
            self._guardian = Guard()
        self._deadline = deadline = time.monotonic() + deadline_s
        try:
            self._guardian.tell(f"arm {deadline!r}")
            self._stop(self._guardian, deadline)
        except BaseException as error:
            self._release()
            if isinstance(error, PermissionError) and not isinstance(error, RootRequired):
                raise RootRequired(f"the task may not be frozen by this user: {error}") from error
            if isinstance(error, ProcessLookupError) and not isinstance(error, TaskEnded):
                raise TaskEnded("the task ended while it was being frozen") from error
            if isinstance(error, BrokenPipeError):
                raise DeadlineExceeded(
                    "the guardian that resumes the task was killed; the task was resumed",
                    hint="try again",
                ) from error
            raise
        return deadline

    def thaw(self) -> None:
        """Let the task run again; harmless when it runs already.

        Raises:
            DeadlineExceeded: The guardian did so before, at the deadline: it has been running.
        """
        deadline, late_by_s = self._deadline, 0.0
        self._release()
        if deadline is not None:
            late_by_s = time.monotonic() - deadline
        if late_by_s > 0:
            raise DeadlineExceeded(
                "the task was frozen longer than allowed and was resumed at its deadline",
                hint="allow more time, or do less while it is frozen",
            )

    def close(self) -> None:
        """End the guardian. The task is thawed if need be."""
        self._release()
        if self._guardian is not None:
            self._guardian.close()
            self._guardian = None

    def _release(self) -> None:
        if self._deadline is None:
            return
        self._deadline = None
        assert self._guardian is not None
        try:
            self._resume()
        finally:
            # Only now: killed in between, the guardian resumes once more, which does no harm.
            try:
                self._guardian.tell("disarm")
            except BrokenPipeError:
                self._guardian.close()
                self._guardian = None

    @abstractmethod
    def _stop(self, guardian: Guard, deadline: float) -> None:
        """Tell the guardian how to resume each thing, then stop it; wait until all is still."""

    @abstractmethod
    def _resume(self) -> None:
        """Resume what `_stop` has stopped."""
