"""Stopping a task for a moment."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import attrs

from snaplib.kernel.freezer import choose_freezer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snaplib.kernel import ProcFs
    from snaplib.kernel.cgroup import TaskCgroup
    from snaplib.kernel.freezer import Freezer

__all__ = ["Freezing", "Frozen"]


@attrs.frozen
class Frozen:
    """What a frozen task is held by.

    Attributes:
        kind: ``cgroup-v2``, ``cgroup-v1`` or ``stop``.
        deadline: When it runs again at the latest, in seconds of ``time.monotonic()``.
    """

    kind: str
    deadline: float

    @property
    def remaining_s(self) -> float:
        """Seconds left until the deadline, negative after it."""
        return self.deadline - time.monotonic()


class Freezing:
    """Stops a task again and again; what it is stopped with is kept meanwhile.

    Args:
        procfs: Where its processes are seen.
        pid: Of its root.
    """

    def __init__(self, procfs: ProcFs, pid: int) -> None:
        self._procfs = procfs
        self._pid = pid
        self._freezer: Freezer | None = None

    @property
    def freezer(self) -> Freezer | None:
        """What it was stopped with the last time."""
        return self._freezer

    @contextlib.contextmanager
    def frozen(self, deadline_s: float, cgroup: TaskCgroup | None) -> Iterator[Frozen]:
        """Stop it while the block runs: see `Task.frozen`.

        Args:
            deadline_s: How long it may stand still.
            cgroup: The one that was made for it, if any.
        """
        freezer = self._choose(cgroup)
        deadline = freezer.freeze(deadline_s)
        try:
            yield Frozen(freezer.kind, deadline)
        finally:
            freezer.thaw()

    def close(self) -> None:
        """End what it is stopped with; may be called again."""
        if self._freezer is not None:
            self._freezer.close()
            self._freezer = None

    def _choose(self, cgroup: TaskCgroup | None) -> Freezer:
        chosen = choose_freezer(self._procfs, self._pid, cgroup)
        # The same kind as last time: keep it, its guardian runs already.
        if self._freezer is None or self._freezer.key != chosen.key:
            self.close()
            self._freezer = chosen
        return self._freezer
