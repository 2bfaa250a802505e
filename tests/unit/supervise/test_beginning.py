"""How a run begins where its snapshot cannot be restored."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

from snaplib.errors import RestoreFailed
from snaplib.event import Event
from snaplib.store import PAGE_BYTES, PageLogOptions, Store
from snaplib.supervise import State, beginning
from snaplib.supervise.settings import Settings
from snaplib.supervise.states import StateMachine
from snaplib.testing.memories import SampleMemory
from snaplib.testing.stores import MemoryBackend

if TYPE_CHECKING:
    import pytest

#: Frames of two blocks.
OPTIONS = PageLogOptions(codec="none", frame_bytes=32 * PAGE_BYTES, workers=1)


def found_pages(store: Store) -> int:
    """How many pages of the same task are found in what there is of it."""
    memory = SampleMemory(store, 40, OPTIONS, find=True)
    memory.copy_ahead()
    memory.writer.abort()
    return memory.writer.pages.found_pages


def test_nothing_is_found_where_a_restore_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command is started again, and its next snapshot has nothing of the one that may be damaged."""
    store = Store.over(MemoryBackend(), create=True)
    memory = SampleMemory(store, 40, OPTIONS)
    memory.copy_ahead()
    memory.declare()
    memory.writer.commit()
    assert found_pages(store) == 32

    def fail(*_: Any, **__: Any) -> None:
        raise RestoreFailed("its bytes are not what was written")

    monkeypatch.setattr(beginning, "restore", fail)
    monkeypatch.setattr(beginning.Task, "launch", lambda *_, **__: types.SimpleNamespace(pid=7))
    settings = Settings(
        command=("true",),
        store=store,
        key="key",
        snapshot_id=None,
        window_s=30.0,
        tcp="auto",
        exit_saved=143,
        on_restore_failure="restart",
        max_attempts=None,
        once=False,
        lazy=False,
        files=None,
        capture=(),
        changed_files="refuse",
        priority=0,
        snapshot_every_s=None,
        keep_snapshots=False,
        adopt_orphans=False,
        streams={},
    )
    told: list[Event] = []
    machine = StateMachine("key", told.append)
    assert beginning.Beginning(settings, machine).resume_or_start().pid == 7
    assert machine.state is State.RUNNING
    assert [event.name for event in told] == ["resuming", "restore_failed", "started"]
    assert found_pages(store) == 0
