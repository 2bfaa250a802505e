"""Run or resume: the main job.

A `Supervisor` finds out what there is for its key (a task that still runs, a snapshot, or nothing), brings the task to
life, and then waits for the first of two things: the task's end, or a notice that the machine is about to be taken
away.  On a notice the task is dumped; if that fails it runs on to the end of the window.

The supervisor owns nothing the task needs: it can be killed at any moment, and the next one takes over.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from snaplib.checkpoint import dump, restore
from snaplib.checkpoint.preflight import preflight
from snaplib.criu import find_criu
from snaplib.errors import (
    EXIT_SAVED,
    RestoreFailed,
    RootRequired,
    SnaplibError,
    StoreError,
    TaskEnded,
    UsageError,
)
from snaplib.event import Event
from snaplib.keylock import KeyLock
from snaplib.session import ExitStatus, RawTerminal, Session
from snaplib.store import Snapshot, Store
from snaplib.task import Task, default_key

__all__ = ["ON_RESTORE_FAILURE", "Supervisor"]

#: How long to wait before a failed dump is tried again, within the window.
_RETRY_AFTER_S = (1.0, 3.0, 10.0)
#: What wakes the supervisor up.
_NOTICE = b"n"
_TERMINAL = b"t"
#: When to look for what would make a dump fail: soon after the start, and then now and then.
_FIRST_LOOK_S = 3.0
_LOOK_EVERY_S = 60.0
#: A dump that has less time than this is not tried again.
_LEAST_DUMP_S = 1.0

ON_RESTORE_FAILURE = ("fail", "restart")


class Supervisor:
    """Looks after one task: starts, resumes or takes it over, and saves it when notice is given.

    Args:
        command: What to run if there is nothing to resume.
        store: Where snapshots are.
        key: What this run's snapshots are found by; derived from folder and command by default.
        snapshot_id: Resume this snapshot, whatever else there is.
        window_s: Seconds from a notice to the end of the machine.
        tcp: What becomes of connected TCP sockets in a dump, ``established`` or ``close``.
        exit_saved: The exit status for "saved, run me again".
        on_restore_failure: ``fail``, or ``restart`` the command from its beginning.
        keep_snapshots: Whether snapshots stay once the task has ended well.
        on_event: Called with each `Event`.
        stdin, stdout, stderr: The task's standard streams; ours by default.

    Raises:
        UsageError: The command is empty, or an option is not what it can be.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        store: Store,
        key: str | None = None,
        snapshot_id: str | None = None,
        window_s: float = 120.0,
        tcp: str = "established",
        exit_saved: int = EXIT_SAVED,
        on_restore_failure: str = "fail",
        keep_snapshots: bool = False,
        on_event: Callable[[Event], None] | None = None,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
    ) -> None:
        if not command:
            raise UsageError("there is no command to run", hint="put it behind --")
        if window_s <= 0:
            raise UsageError(f"a window of {window_s:g} s leaves no time for a dump")
        if on_restore_failure not in ON_RESTORE_FAILURE:
            raise UsageError(
                f"{on_restore_failure!r} is not one of {', '.join(ON_RESTORE_FAILURE)}"
            )
        self.command = tuple(command)
        self.store = store
        self.key = key or default_key(command, Path.cwd())
        self.snapshot_id = snapshot_id
        self.window_s = window_s
        self.tcp = tcp
        self.exit_saved = exit_saved
        self.on_restore_failure = on_restore_failure
        self.keep_snapshots = keep_snapshots
        self._on_event = on_event or (lambda _event: None)
        self._streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
        self._task: Task | None = None
        self._told: set[tuple[str, int]] = set()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    @property
    def session_name(self) -> str:
        """The name of the session of this key and store."""
        digest = hashlib.sha256(f"{self.store.url}\0{self.key}".encode("utf-8", "surrogateescape"))
        return f"run-{digest.hexdigest()[:24]}"

    @property
    def task(self) -> Task | None:
        """The task, once there is one."""
        return self._task

    def notice(self) -> None:
        """Say that the window begins now.  From any thread or signal handler."""
        self._wake(_NOTICE)

    def signal(self, number: int) -> None:
        """Pass a signal on to the task.  From any thread or signal handler."""
        if self._task is not None:
            with contextlib.suppress(TaskEnded):
                self._task.signal(number)

    def refresh_terminal(self) -> None:
        """Say that the terminal has changed: its size, or whose it is.  From any thread or signal handler."""
        self._wake(_TERMINAL)

    def _wake(self, word: bytes) -> None:
        # A full pipe means that a thousand are waiting to be read already.
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, word)

    def run(self) -> int:
        """Look after the task until it has ended, is saved, or the window is over.

        Returns:
            The exit status to end with: the task's own, 128 + N if signal N ended it, or ``exit_saved``.

        Raises:
            KeyBusy: Another supervisor looks after this key.
            SnaplibError: The task could not be started or resumed, or a dump failed and the window is over; the
                task then still runs.
        """
        with KeyLock(self.session_name, self.key):
            self._check_ready()
            left = Session.last_status(self.session_name)
            if left is not None:
                Session.forget(self.session_name)
                if left.saved is None:
                    # The task ended while nobody looked after it: this is what its end is told with.
                    return self._finish(left)
            self._task = self._adopt()
            if self._task is None and self._noticed():
                # Nothing runs yet: what there is to save is saved already.
                self._tell("not_started")
                return self.exit_saved
            self._task = self._task or self._resume() or self._start()
            session = self._task.session
            assert session is not None
            with session.raw_terminal() as terminal:
                return self._watch(self._task, session, terminal)

    def _noticed(self) -> bool:
        return bool(select.select([self._wake_read], [], [], 0)[0])

    def _check_ready(self) -> None:
        """Find out now, and not when the notice comes, what would make a dump fail."""
        if os.geteuid() != 0:
            raise RootRequired("saving a task needs root")
        find_criu()
        with self.store.begin(self.key):
            pass

    def _adopt(self) -> Task | None:
        """Take over a task whose supervisor died."""
        session = Session.find(self.session_name)
        if session is None:
            return None
        session.take_over(**self._streams)
        task = Task.of_session(session)
        self._tell("adopted", pid=task.pid)
        return task

    def _resume(self) -> Task | None:
        """Restore the newest snapshot, if there is one."""
        if self.snapshot_id is not None:
            snapshot: Snapshot | None = self.store.get(self.snapshot_id)
        else:
            snapshot = self.store.latest(self.key)
        if snapshot is None:
            return None
        began = time.monotonic()
        try:
            task = restore(
                self.store,
                snapshot.id,
                name=self.session_name,
                interactive=True,
                **self._streams,
            )
        except (RestoreFailed, StoreError) as error:
            self._tell("restore_failed", snapshot=snapshot.id, reason=str(error))
            if self.on_restore_failure == "restart":
                return None
            raise
        self._tell(
            "restored", pid=task.pid, snapshot=snapshot.id, restore_s=time.monotonic() - began
        )
        return task

    def _start(self) -> Task:
        task = Task.launch(
            list(self.command),
            name=self.session_name,
            key=self.key,
            interactive=True,
            **self._streams,
        )
        self._tell("started", pid=task.pid, command=shlex.join(self.command))
        return task

    def _watch(self, task: Task, session: Session, terminal: RawTerminal) -> int:
        poll = select.poll()
        poll.register(session.pidfd, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        look_at = time.monotonic() + _FIRST_LOOK_S
        while True:
            wait_s = max(0.0, look_at - time.monotonic())
            ready = {descriptor for descriptor, _events in poll.poll(wait_s * 1000)}
            if not ready:
                self._look_ahead(task)
                look_at = time.monotonic() + _LOOK_EVERY_S
                continue
            if session.pidfd in ready:
                status = session.wait()
                session.cleanup()
                return self._finish(status)
            words = os.read(self._wake_read, 4096)
            if _TERMINAL in words:
                terminal.refresh()
            if _NOTICE not in words:
                continue
            saved = self._save(task, session)
            if saved is not None:
                return saved

    def _look_ahead(self, task: Task) -> None:
        """Tell what a dump would fail at, or lose, while there is time to do something about it; each thing once."""
        with contextlib.suppress(TaskEnded):
            for one in preflight(task, tcp=self.tcp):
                if one.severity != "warning" and (one.code, one.pid) not in self._told:
                    self._told.add((one.code, one.pid))
                    self._tell("obstacle", **attrs.asdict(one))

    def _save(self, task: Task, session: Session) -> int | None:
        """Dump the task within the window; None if it ended before it could be saved."""
        end = time.monotonic() + self.window_s
        self._tell("notice", window_s=self.window_s)
        pauses = iter(_RETRY_AFTER_S)
        while True:
            began = time.monotonic()
            try:
                snapshot = dump(
                    task, self.store, key=self.key, tcp=self.tcp, deadline_s=end - began
                )
            except SnaplibError as error:
                if not task.alive():
                    return None
                left_s = end - time.monotonic()
                self._tell("dump_failed", reason=str(error), left_s=max(0.0, left_s))
                pause_s = next(pauses, left_s)
                if left_s - pause_s < _LEAST_DUMP_S:
                    if _ends_within(session, max(0.0, left_s)):
                        return None
                    raise
                if _ends_within(session, pause_s):
                    return None
            else:
                session.wait()
                session.cleanup()
                self._tell("saved", **_figures(snapshot), dump_s=time.monotonic() - began)
                return self.exit_saved

    def _finish(self, status: ExitStatus) -> int:
        """The task is over: tell its status and tidy up what is of no use any more."""
        if status.saved is not None:
            self._tell("saved", snapshot=status.saved)
            return self.exit_saved
        self._tell("ended", exit_code=status.exit_code, signal=status.signal)
        self.store.mark_ended(self.key, status.exit_code, status.signal)
        if status.exit_code == 0 and not self.keep_snapshots:
            for snapshot in self.store.snapshots(self.key):
                self.store.remove(snapshot.id)
        return status.shell_code

    def _tell(self, name: str, **details: Any) -> None:
        self._on_event(Event(name, time.time(), self.key, details))


def _ends_within(session: Session, timeout_s: float) -> bool:
    try:
        session.wait(timeout_s)
    except TimeoutError:
        return False
    return True


def _figures(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "snapshot": snapshot.id,
        "memory_bytes": snapshot.raw_bytes,
        "stored_bytes": snapshot.stored_bytes,
        "frozen_s": snapshot.timings["frozen_s"],
    }
