"""The end of a run: its status is told, and what is of no use any more is removed."""

from __future__ import annotations

import contextlib
import signal

from snaplib.errors import NoSuchSnapshot, StoreError
from snaplib.reclaim import Watchers
from snaplib.session import ExitStatus
from snaplib.supervise.settings import Settings
from snaplib.supervise.states import State, StateMachine

__all__ = ["finish"]


def finish(
    settings: Settings,
    machine: StateMachine,
    watchers: Watchers,
    status: ExitStatus,
    *,
    in_window: bool = False,
) -> int:
    """Tell how a task ended, and tidy up.

    Args:
        settings: The run.
        machine: Becomes ``done``, ``failed`` if the task was killed, or ``saved`` if it is not.
        watchers: Hear that nothing is left to be saved.
        status: How the task ended.
        in_window: Whether its machine was about to go: then SIGTERM is somebody else's doing.

    Returns:
        The exit status to end with.
    """
    if status.saved is not None:
        if machine.state is not State.SAVED:
            machine.move(State.SAVED, "saved", snapshot=status.saved)
        watchers.acknowledge()
        return settings.exit_saved
    if status.was_killed or (in_window and status.was_ended_by(signal.SIGTERM)):
        # It has not ended by itself: the next run goes on with what there is of it.
        machine.move(
            State.FAILED,
            "killed",
            exit_code=status.exit_code,
            signal=status.signal,
            snapshot=_kept(settings),
        )
        return status.shell_code
    machine.move(State.DONE, "ended", exit_code=status.exit_code, signal=status.signal)
    # The work is done, whatever the store says of it.
    doing = "end_not_noted"
    try:
        settings.store.mark_ended(settings.key, status.exit_code, status.signal)
        doing = "not_removed"
        if status.exit_code == 0 and not settings.keep_snapshots:
            _remove_snapshots(settings)
    except StoreError as error:
        machine.tell(doing, reason=str(error))
    return status.shell_code


def _remove_snapshots(settings: Settings) -> None:
    for snapshot in settings.store.snapshots(settings.key):
        # Somebody else may be pruning.
        with contextlib.suppress(NoSuchSnapshot):
            settings.store.remove(snapshot.id)


def _kept(settings: Settings) -> str | None:
    """Return the snapshot that the next run resumes."""
    try:
        snapshot = settings.store.latest(settings.key)
    except StoreError:
        return None
    return snapshot.id if snapshot is not None else None
