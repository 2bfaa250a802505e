"""Bringing a task to life: taking over one that runs, restoring a snapshot, or starting the command."""

from __future__ import annotations

import contextlib
import os
import shlex
import time

from snaplib.checkpoint import restore
from snaplib.checkpoint.leftlocks import free_connections
from snaplib.criu import find_criu
from snaplib.errors import (
    RestoreFailed,
    RootRequired,
    StoreError,
    TaskEnded,
    TooManyAttempts,
)
from snaplib.session import ExitStatus, Session
from snaplib.store import Snapshot
from snaplib.supervise.settings import Settings
from snaplib.supervise.states import State, StateMachine
from snaplib.task import Task

__all__ = ["Beginning"]

#: How long a restore whose supervisor died may take to come to an end.
_RESTORE_END_S = 60.0
#: How often to look what has become of a session.
_LOOK_S = 0.02


class Beginning:
    """Finds out what there is for a run, and goes on with it.

    Args:
        settings: The run.
        machine: Is ``starting``; becomes ``running`` with the task.
    """

    def __init__(self, settings: Settings, machine: StateMachine) -> None:
        self._settings = settings
        self._machine = machine
        #: Whether the command is just being started: there is a task, or is about to be one.
        self.starts = False

    def check_ready(self) -> None:
        """Find out now, and not when the notice comes, what would make a dump fail.

        Raises:
            RootRequired: We are not root.
            SnaplibError: There is no CRIU that can be used, or the store cannot be written to.
        """
        if os.geteuid() != 0:
            raise RootRequired("saving a task needs root")
        find_criu()
        with self._settings.store.begin(self._settings.key):
            pass

    def left_over(self) -> Task | ExitStatus | None:
        """Return what a supervisor that died has left on this machine.

        Returns:
            Its task, taken over; or how that has ended since; None if there is neither, or it was saved or killed.
        """
        name = self._settings.session_name
        while True:
            session = Session.find(name)
            if session is not None:
                with contextlib.suppress(TaskEnded):
                    return self._adopt(session)
                session.close()
            elif not Session.lives(name):
                return _forget(name)
            # It is just ending.
            time.sleep(_LOOK_S)

    def _adopt(self, session: Session) -> Task:
        """Take a task over whose supervisor died."""
        end_s = time.monotonic() + _RESTORE_END_S
        while session.status()["state"] == "restoring":
            # The supervisor died in a restore, and what has become of that is about to be known.
            if time.monotonic() > end_s:
                raise RestoreFailed(
                    f"the restore of an earlier run, in session {session.name}, does not end",
                    hint=f"end its init, pid {session.host_pid}, and run the same command again",
                )
            time.sleep(_LOOK_S)
        session.take_over(**self._settings.streams)
        task = Task.of_session(session)
        # CRIU may have been killed together with the supervisor.
        with contextlib.suppress(OSError):
            free_connections(task)
        self._machine.move(State.RUNNING, "adopted", pid=task.pid)
        return task

    def ended_before(self) -> ExitStatus | None:
        """Return how the task ended in an earlier run, if that is all that is wanted; `machine` becomes ``done``."""
        settings = self._settings
        if not settings.once or settings.snapshot_id is not None:
            return None
        if settings.store.latest(settings.key) is not None:
            return None
        end = settings.store.ended(settings.key)
        if end is None:
            return None
        self._machine.move(
            State.DONE,
            "ended_before",
            exit_code=end.exit_code,
            signal=end.signal,
            ended_at=end.ended_at,
        )
        return ExitStatus(exit_code=end.exit_code, signal=end.signal)

    def resume_or_start(self) -> Task:
        """Restore the snapshot that there is, else start the command.

        Raises:
            TooManyAttempts: That was done as often as it may be.
            SnaplibError: It could not be done.
        """
        self._check_attempts()
        return self._resume() or self._start()

    def _check_attempts(self) -> None:
        most, key = self._settings.max_attempts, self._settings.key
        if most is None:
            return
        attempts = self._settings.store.journal(key).attempts()
        if attempts >= most:
            raise TooManyAttempts(
                f"the task of key {key} was started or resumed {attempts} times and has not ended",
                hint="see what became of it with `snaplib report`; its newest snapshot is kept, --max-attempts allows "
                "more",
            )

    def _resume(self) -> Task | None:
        """Restore a snapshot; None when there is none, or it failed and the command is to be started again."""
        settings, machine = self._settings, self._machine
        snapshot = self._snapshot()
        if snapshot is None:
            return None
        began = time.monotonic()
        machine.move(State.RESUMING, "resuming", snapshot=snapshot.id)
        try:
            task = restore(
                settings.store,
                snapshot.id,
                name=settings.session_name,
                interactive=True,
                lazy=settings.lazy,
                changed_files=settings.changed_files,
                outlived=self._outlived(snapshot),
                tcp=settings.tcp,
                on_connection=lambda fate: machine.tell("connection", **fate.figures()),
                **settings.streams,
            )
        except (RestoreFailed, StoreError) as error:
            restart = settings.on_restore_failure == "restart"
            state = State.STARTING if restart else State.FAILED
            machine.move(state, "restore_failed", snapshot=snapshot.id, reason=str(error))
            if restart:
                # Whatever is wrong with it is not to be part of the next one.
                settings.store.distrust(snapshot.id)
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

    def _snapshot(self) -> Snapshot | None:
        settings = self._settings
        if settings.snapshot_id is not None:
            return settings.store.get(settings.snapshot_id)
        return settings.store.latest(settings.key)

    def _outlived(self, snapshot: Snapshot) -> bool:
        """Whether a task has run on after a snapshot: its own, or one that was resumed from it already."""
        try:
            return self._settings.store.journal(snapshot.key).outlived(snapshot.id)
        except StoreError:
            # A file that has grown is refused then.
            return False

    def _start(self) -> Task:
        settings = self._settings
        self.starts = True
        task = Task.launch(
            list(settings.command),
            name=settings.session_name,
            key=settings.key,
            interactive=True,
            adopt_orphans=settings.adopt_orphans,
            **settings.streams,
        )
        self._machine.move(
            State.RUNNING, "started", pid=task.pid, command=shlex.join(settings.command)
        )
        return task


def _forget(name: str) -> ExitStatus | None:
    """Remove what is left of a session, and return how its task ended; None if there was none or it did not."""
    left = Session.last_status(name)
    if left is None:
        return None
    Session.forget(name)
    return left if left.saved is None and not left.was_killed else None
