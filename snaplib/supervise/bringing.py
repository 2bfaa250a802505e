"""Bringing a task to life: taking over one that runs, restoring a snapshot, or starting the command."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any

from snaplib.checkpoint import restore
from snaplib.errors import RestoreFailed, StoreError
from snaplib.session import Session
from snaplib.store import Snapshot, Store
from snaplib.supervise.states import State, StateMachine
from snaplib.task import Task

__all__ = ["adopt", "resume", "start"]


def adopt(name: str, streams: Mapping[str, Any], machine: StateMachine) -> Task | None:
    """Take over a task whose supervisor died; None when there is none.

    Args:
        name: Its session's name.
        streams: What its standard streams are connected to now.
        machine: Becomes ``running``.
    """
    session = Session.find(name)
    if session is None:
        return None
    session.take_over(**streams)
    task = Task.of_session(session)
    machine.move(State.RUNNING, "adopted", pid=task.pid)
    return task


def resume(
    store: Store,
    snapshot: Snapshot,
    *,
    name: str,
    streams: Mapping[str, Any],
    machine: StateMachine,
    lazy: bool,
    changed_files: str,
    restart: bool,
) -> Task | None:
    """Restore a snapshot; None when that failed and the command is to be started again.

    Args:
        store: Where it is.
        snapshot: What to restore.
        name: The new session's name.
        streams: What its standard streams are connected to.
        machine: Becomes ``running``; when it failed ``failed``, or ``starting``.
        lazy: Whether it runs before its memory is there.
        changed_files: What becomes of a file of the snapshot that has changed since.
        restart: Whether a failure means to start again.

    Raises:
        RestoreFailed: The restore failed.
        StoreError: The snapshot could not be read.
    """
    began = time.monotonic()
    machine.move(State.RESUMING, "resuming", snapshot=snapshot.id)
    try:
        task = restore(
            store,
            snapshot.id,
            name=name,
            interactive=True,
            lazy=lazy,
            changed_files=changed_files,
            **streams,
        )
    except (RestoreFailed, StoreError) as error:
        state = State.STARTING if restart else State.FAILED
        machine.move(state, "restore_failed", snapshot=snapshot.id, reason=str(error))
        if restart:
            return None
        raise
    machine.move(
        State.RUNNING,
        "restored",
        pid=task.pid,
        snapshot=snapshot.id,
        restore_s=time.monotonic() - began,
    )
    return task


def start(
    command: Sequence[str],
    *,
    name: str,
    key: str,
    streams: Mapping[str, Any],
    machine: StateMachine,
    adopt_orphans: bool = False,
) -> Task:
    """Start the command.

    Args:
        command: The program and its arguments.
        name: The session's name.
        key: What its snapshots are found by.
        streams: What its standard streams are connected to.
        machine: Becomes ``running``.
        adopt_orphans: See `Task.launch`.

    Raises:
        SnaplibError: It could not be started.
    """
    task = Task.launch(
        list(command),
        name=name,
        key=key,
        interactive=True,
        adopt_orphans=adopt_orphans,
        **streams,
    )
    machine.move(State.RUNNING, "started", pid=task.pid, command=shlex.join(command))
    return task
