"""How a task is saved: what is copied ahead while it runs, and the last step when there is notice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs

from snaplib.checkpoint import Deadline
from snaplib.errors import SnaplibError
from snaplib.node import resident_bytes
from snaplib.store import Snapshot
from snaplib.supervise.savecontext import SaveContext

__all__ = ["Expected", "FullDump", "Saver", "SaverFactory"]


@attrs.frozen
class Expected:
    """What saving a task is expected to take.

    Attributes:
        size_bytes: What has to be sent.
        seconds: How long that takes if nobody else uses the store; None where it is not known.
    """

    size_bytes: int
    seconds: float | None = None


class Saver(Protocol):
    """Saves one task.

    The main loop asks `next_copy_s` whenever something has happened.  Once that many seconds have passed, it calls
    `copy` in another thread, and asks again.  On notice it has `copy` stop, and then calls `save`, in another thread
    too; never two of them at once.
    """

    def next_copy_s(self) -> float | None:
        """Return in how many seconds to copy ahead, 0 for at once; None: not before something has happened."""
        ...

    def copy(self, stop: threading.Event) -> Mapping[str, Any]:
        """Copy ahead while the task runs.

        Args:
            stop: Once it is set there is no time left: return within some 50 ms, with the task running.

        Returns:
            The figures of the ``copied`` event.

        Raises:
            SnaplibError: It failed; told as ``copy_failed``.  The task runs, and can be saved without it.
        """
        ...

    def hint(self) -> None:
        """Hear that notice may come soon."""
        ...

    def expect(self) -> Expected:
        """Return what `save` would take now, at once: the other tasks of the node are told."""
        ...

    def save(self, deadline: Deadline, failures: tuple[SnaplibError, ...]) -> Snapshot:
        """Save the task, and end it.

        Args:
            deadline: When it must be done; it may be moved meanwhile.
            failures: What has been tried in this window and went wrong: the time for another strategy.

        Returns:
            The snapshot, durable.

        Raises:
            SnaplibError: It failed; the task runs on.
        """
        ...

    def snapshot(self, deadline: Deadline) -> Snapshot:
        """Save the task, and let it run on: ``dump(…, leave_running=True, stand_in=True)``.

        Args:
            deadline: When it must be done; called off when there is no time left for it.

        Returns:
            The snapshot, durable.

        Raises:
            SnaplibError: It failed; the task runs on.
        """
        ...

    def close(self) -> None:
        """Let go of everything; the task has ended, or runs on unsupervised."""
        ...


SaverFactory = Callable[[SaveContext], Saver]


class FullDump:
    """Copies nothing ahead, and dumps everything.

    Args:
        context: What to save, and where to.
    """

    def __init__(self, context: SaveContext) -> None:
        self._context = context

    def next_copy_s(self) -> float | None:
        """Never."""
        return None

    def copy(self, stop: threading.Event) -> Mapping[str, Any]:  # noqa: ARG002 - the protocol's
        """Copy nothing."""
        return {}

    def hint(self) -> None:
        """Do nothing about it."""

    def expect(self) -> Expected:
        """All that is resident has to be sent."""
        return Expected(resident_bytes(self._context.task.pid))

    def save(self, deadline: Deadline, failures: tuple[SnaplibError, ...]) -> Snapshot:  # noqa: ARG002 - the same again
        """Dump the whole task; a failure may have been a passing one, so it is the same each time."""
        return self._context.dump(deadline)

    def snapshot(self, deadline: Deadline) -> Snapshot:
        """Dump the whole task, and let it run on."""
        return self._context.dump(deadline, leave_running=True)

    def close(self) -> None:
        """Nothing is held."""
