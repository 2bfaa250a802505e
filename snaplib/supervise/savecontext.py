"""What a saver works with: a task, its store, and what every dump of it is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from snaplib.checkpoint import Deadline, dump
from snaplib.store import Snapshot, Store
from snaplib.supervise.promise import Promise
from snaplib.task import Task

if TYPE_CHECKING:
    from snaplib.forecasting import StrategyForecast
    from snaplib.warm import WarmCopy

__all__ = ["SaveContext"]


@attrs.frozen
class SaveContext:
    """What a saver works with.

    Attributes:
        task: The task, which runs.
        store: Where snapshots go.
        key: What they are found by.
        tcp: What becomes of connected TCP sockets.
        window_s: The seconds that a notice is expected to leave.
        tell: Tells an event: its name, and its figures by keyword.  From any thread.
        files: Whether the files that the task writes go along: ``capture`` or ``reference``; None is `dump`'s choice.
        capture: Patterns of files that go along in any case.
        wake: Has `Saver.next_copy_s` asked again.  From any thread.
        promise: How much work is lost at most; what has a plan tells it the plan's interval.
    """

    task: Task
    store: Store
    key: str
    tcp: str
    window_s: float
    tell: Callable[..., None]
    wake: Callable[[], None]
    files: str | None = None
    capture: tuple[str, ...] = ()
    promise: Promise = attrs.field(factory=Promise)

    def dump(
        self,
        deadline: Deadline,
        *,
        leave_running: bool = False,
        warm: WarmCopy | None = None,
        plan: StrategyForecast | None = None,
    ) -> Snapshot:
        """Dump the task.

        Args:
            deadline: When it must be done; it may be moved meanwhile.
            leave_running: Let it run on: the snapshot stands in for it if its machine goes.  Else it is ended.
            warm: Copies to build upon.
            plan: What is expected of the dump.

        Returns:
            The snapshot, durable.

        Raises:
            SnaplibError: It failed; the task runs on.
        """
        return dump(
            self.task,
            self.store,
            key=self.key,
            tcp=self.tcp,
            files=self.files,
            capture=self.capture,
            deadline_s=deadline,
            leave_running=leave_running,
            # One that is to end it too: we may be killed before it does.
            stand_in=True,
            warm=warm,
            plan=plan,
        )
