"""What savers are given in tests."""

from __future__ import annotations

from snaplib.store import Store
from snaplib.supervise import SaveContext
from snaplib.task import Task


def context_of(task: Task, store: Store) -> SaveContext:
    """Return the context of a run of which nobody hears anything."""
    return SaveContext(
        task=task,
        store=store,
        key="key",
        tcp="established",
        window_s=60.0,
        tell=lambda *_, **__: None,
        wake=lambda: None,
    )
