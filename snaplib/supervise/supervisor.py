"""Run or resume: the main job.

A `Supervisor` finds out what there is for its key (a task that still runs, a snapshot, or nothing), brings the task to
life, and then looks after it until it has ended, is saved, or the window of a notice is over.

The supervisor owns nothing the task needs: it can be killed at any moment, and the next one takes over.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from snaplib.criu import find_criu
from snaplib.errors import (
    EXIT_SAVED,
    RootRequired,
    SnaplibError,
    TaskEnded,
    TooManyAttempts,
    UsageError,
)
from snaplib.event import Event
from snaplib.keylock import KeyLock
from snaplib.node import Entry, Registry, Turn
from snaplib.reclaim import Notice, NoticeKind, NoticeSource, Watchers
from snaplib.session import ExitStatus, Session
from snaplib.store import Store
from snaplib.supervise.bringing import adopt, resume, start
from snaplib.supervise.inbox import Inbox
from snaplib.supervise.life import Life, TerminalChanged
from snaplib.supervise.lookout import Lookout
from snaplib.supervise.recorder import Recorder
from snaplib.supervise.saver import SaveContext, SaverFactory
from snaplib.supervise.states import MOVES, State, StateMachine
from snaplib.supervise.warmsaver import warm_saver
from snaplib.task import Task, default_key

__all__ = ["ON_RESTORE_FAILURE", "WINDOW_S", "Supervisor"]

ON_RESTORE_FAILURE = ("fail", "restart")
#: The window where nobody says anything else.
WINDOW_S = 120.0


class Supervisor:
    """Looks after one task: starts, resumes or takes it over, and saves it when notice is given.

    Args:
        command: What to run if there is nothing to resume.
        store: Where snapshots are.
        key: What this run's snapshots are found by; derived from folder and command by default.
        snapshot_id: Resume this snapshot, whatever else there is.
        window_s: Seconds from a notice to the end of the machine, where the notice does not say; by default the
            shortest that one of the sources usually leaves, 120 without any.
        reclaim: Who may give notice, besides `notice`.
        tcp: What becomes of connected TCP sockets in a dump, ``established`` or ``close``.
        exit_saved: The exit status for "saved, run me again".
        on_restore_failure: ``fail``, or ``restart`` the command from its beginning.
        max_attempts: How often the task may be started or resumed before it has ended; without limit by default.
        once: If the task of this key has ended before, do not start it again but end with its status.
        files: Whether the files that the task writes go with its snapshots: ``capture`` or ``reference``.
        capture: Patterns of files whose contents go with its snapshots in any case; ``**`` stands for any folders.
        changed_files: What becomes of such a file that has changed since: ``refuse`` or ``overwrite``.
        lazy: Let a task that is resumed run before its memory is there.
        priority: Of the tasks of one node that must be saved at once, those of a higher one come first.
        snapshot_every_s: Seconds between two snapshots while the task runs on: if the machine goes without notice, so
            much work is lost at most.  None are made by default.
        keep_snapshots: Whether snapshots stay once the task has ended well.
        adopt_orphans: Whether processes that lose their parent become the command's own; see `Task.launch`.
        saver: Makes what copies the task ahead and saves it; see `warm_saver`.
        on_event: Called with each `Event`, in the thread that called `run`.
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
        window_s: float | None = None,
        reclaim: Sequence[NoticeSource] = (),
        tcp: str = "established",
        exit_saved: int = EXIT_SAVED,
        on_restore_failure: str = "fail",
        max_attempts: int | None = None,
        once: bool = False,
        lazy: bool = False,
        files: str | None = None,
        capture: Collection[str] = (),
        changed_files: str = "refuse",
        priority: int = 0,
        snapshot_every_s: float | None = None,
        keep_snapshots: bool = False,
        adopt_orphans: bool = False,
        saver: SaverFactory | None = None,
        on_event: Callable[[Event], None] | None = None,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
    ) -> None:
        if not command:
            raise UsageError("there is no command to run", hint="put it behind --")
        if window_s is None:
            window_s = min((one.window_s for one in reclaim), default=WINDOW_S)
        if window_s <= 0:
            raise UsageError(f"a window of {window_s:g} s leaves no time for a dump")
        if on_restore_failure not in ON_RESTORE_FAILURE:
            raise UsageError(
                f"{on_restore_failure!r} is not one of {', '.join(ON_RESTORE_FAILURE)}"
            )
        if snapshot_every_s is not None and snapshot_every_s <= 0:
            raise UsageError(f"a snapshot every {snapshot_every_s:g} s leaves no time for the task")
        if max_attempts is not None and max_attempts < 1:
            raise UsageError(f"{max_attempts} attempts are none")
        self.command = tuple(command)
        self.store = store
        self.key = key or default_key(command, Path.cwd())
        self.snapshot_id = snapshot_id
        self.window_s = window_s
        self.tcp = tcp
        self.exit_saved = exit_saved
        self.on_restore_failure = on_restore_failure
        self.max_attempts = max_attempts
        self.once = once
        self.lazy = lazy
        self.files = files
        self.capture = tuple(capture)
        self.changed_files = changed_files
        self.priority = priority
        self.snapshot_every_s = snapshot_every_s
        self.keep_snapshots = keep_snapshots
        self.adopt_orphans = adopt_orphans
        self._make_saver = saver or warm_saver()
        self._streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
        self._task: Task | None = None
        self._on_event = on_event or (lambda _event: None)
        self._recorder = Recorder(store, self.key, self.command)
        self._machine = StateMachine(self.key, self._tell)
        self._inbox = Inbox()
        self._watchers = Watchers(reclaim, self._inbox.put)

    @property
    def session_name(self) -> str:
        """The name of the session of this key and store."""
        digest = hashlib.sha256(f"{self.store.url}\0{self.key}".encode("utf-8", "surrogateescape"))
        return f"run-{digest.hexdigest()[:24]}"

    @property
    def task(self) -> Task | None:
        """The task, once there is one."""
        return self._task

    @property
    def state(self) -> State:
        """Where the task's life is."""
        return self._machine.state

    def notice(
        self,
        window_s: float | None = None,
        *,
        source: str = "caller",
        kind: NoticeKind = NoticeKind.RECLAIM,
        detail: str = "",
    ) -> None:
        """Say that the window begins now.  From any thread or signal handler.

        Args:
            window_s: Seconds from now to the end of the machine; the supervisor's own by default.
            source: Who says so; one source can only shorten or take back its own window.
            kind: That it begins, may begin soon, or is taken back.
            detail: More for people.
        """
        self._inbox.put(Notice(source, window_s, kind, detail))

    def signal(self, number: int) -> None:
        """Pass a signal on to the task.  From any thread or signal handler."""
        if self._task is not None:
            with contextlib.suppress(TaskEnded):
                self._task.signal(number)

    def refresh_terminal(self) -> None:
        """Say that the terminal has changed: its size, or whose it is.  From any thread or signal handler."""
        self._inbox.put(TerminalChanged())

    def run(self) -> int:
        """Look after the task until it has ended, is saved, or the window is over.  Once for each supervisor.

        Returns:
            The exit status to end with: the task's own, 128 + N if signal N ended it, or ``exit_saved``.

        Raises:
            KeyBusy: Another supervisor looks after this key.
            SnaplibError: The task could not be started or resumed, or a dump failed and the window is over; the
                task then still runs.
        """
        with KeyLock(self.session_name, self.key):
            self._watchers.start()
            try:
                return self._run()
            except SnaplibError as error:
                if MOVES[self.state]:
                    self._machine.move(
                        State.FAILED, "failed", reason=error.message, exit_code=error.exit_code
                    )
                raise
            finally:
                self._watchers.stop()

    def _run(self) -> int:
        self._check_ready()
        left = Session.last_status(self.session_name)
        if left is not None:
            Session.forget(self.session_name)
            if left.saved is None:
                # The task ended while nobody looked after it: this is what its end is told with.
                return self._finish(left)
        name, machine = self.session_name, self._machine
        self._task = adopt(name, self._streams, machine)
        if self._task is None and self._noticed():
            # Nothing runs yet: what there is to save is saved already.
            machine.move(State.SAVED, "not_started")
            return self.exit_saved
        if self._task is None:
            ended = self._ended_before()
            if ended is not None:
                return ended
            self._check_attempts()
        self._task = self._task or self._resume() or self._start()
        session = self._task.session
        assert session is not None
        with session.raw_terminal() as terminal:
            life = Life(
                self._task,
                session,
                terminal=terminal,
                saver=self._make_saver(self._save_context(self._task)),
                lookout=Lookout(self._task, self.tcp, self._inbox.tell),
                turn=self._turn(self._task),
                inbox=self._inbox,
                machine=machine,
                window_s=self.window_s,
                store=self.store,
                snapshot_every_s=self.snapshot_every_s,
            )
            return self._finish(life.run())

    def _tell(self, event: Event) -> None:
        self._on_event(event)
        self._recorder(event)

    def _noticed(self) -> bool:
        """Whether there is notice already; what there is stays to be heard."""
        messages = self._inbox.take()
        for message in messages:
            self._inbox.put(message)
        return any(isinstance(one, Notice) and one.kind is NoticeKind.RECLAIM for one in messages)

    def _check_ready(self) -> None:
        """Find out now, and not when the notice comes, what would make a dump fail."""
        if os.geteuid() != 0:
            raise RootRequired("saving a task needs root")
        find_criu()
        with self.store.begin(self.key):
            pass

    def _ended_before(self) -> int | None:
        """Return the status of the task that ran once, if that is all that is wanted."""
        if not self.once or self.snapshot_id is not None or self.store.latest(self.key) is not None:
            return None
        end = self.store.ended(self.key)
        if end is None:
            return None
        self._machine.move(
            State.DONE,
            "ended_before",
            exit_code=end.exit_code,
            signal=end.signal,
            ended_at=end.ended_at,
        )
        return ExitStatus(exit_code=end.exit_code, signal=end.signal).shell_code

    def _check_attempts(self) -> None:
        if self.max_attempts is None:
            return
        attempts = self.store.journal(self.key).attempts()
        if attempts >= self.max_attempts:
            raise TooManyAttempts(
                f"the task of key {self.key} was started or resumed {attempts} times and has not ended",
                hint="see what became of it with `snaplib report`; its newest snapshot is kept, --max-attempts allows "
                "more",
            )

    def _resume(self) -> Task | None:
        """Restore the newest snapshot, if there is one."""
        if self.snapshot_id is not None:
            snapshot = self.store.get(self.snapshot_id)
        else:
            found = self.store.latest(self.key)
            if found is None:
                return None
            snapshot = found
        return resume(
            self.store,
            snapshot,
            name=self.session_name,
            streams=self._streams,
            machine=self._machine,
            lazy=self.lazy,
            changed_files=self.changed_files,
            restart=self.on_restore_failure == "restart",
        )

    def _start(self) -> Task:
        return start(
            self.command,
            name=self.session_name,
            key=self.key,
            streams=self._streams,
            machine=self._machine,
            adopt_orphans=self.adopt_orphans,
        )

    def _save_context(self, task: Task) -> SaveContext:
        return SaveContext(
            task=task,
            store=self.store,
            key=self.key,
            tcp=self.tcp,
            files=self.files,
            capture=self.capture,
            window_s=self.window_s,
            tell=self._inbox.tell,
            wake=self._inbox.wake,
        )

    def _turn(self, task: Task) -> Turn:
        entry = Entry(
            name=self.session_name,
            key=self.key,
            state="running",
            pid=task.pid,
            began_s=time.monotonic() - _age_s(task),
            priority=self.priority,
        )
        return Turn(Registry(self.session_name), entry)

    def _finish(self, status: ExitStatus) -> int:
        """The task is over: tell its status and tidy up what is of no use any more."""
        if status.saved is not None:
            if self.state is not State.SAVED:
                self._machine.move(State.SAVED, "saved", snapshot=status.saved)
            self._watchers.acknowledge()
            return self.exit_saved
        self._machine.move(State.DONE, "ended", exit_code=status.exit_code, signal=status.signal)
        self.store.mark_ended(self.key, status.exit_code, status.signal)
        if status.exit_code == 0 and not self.keep_snapshots:
            for snapshot in self.store.snapshots(self.key):
                self.store.remove(snapshot.id)
        return status.shell_code


def _age_s(task: Task) -> float:
    """Return how long a task has run on this machine, also under supervisors before this one."""
    started_s = task.start_time / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started_s)
