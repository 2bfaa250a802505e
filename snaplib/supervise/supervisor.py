"""Run or resume: the main job.

A `Supervisor` finds out what there is for its key (a task that still runs, a snapshot, or nothing), brings the task to
life, and then looks after it until it has ended, is saved, or the window of a notice is over.

The supervisor owns nothing the task needs: it can be killed at any moment, and the next one takes over.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from signal import SIGTERM
from typing import Any

from snaplib.arguments import command_words, functions, number, patterns
from snaplib.errors import EXIT_SAVED, SnaplibError, TaskEnded, WrongType
from snaplib.event import Event
from snaplib.keylock import KeyLock
from snaplib.node import Registry, Turn
from snaplib.reclaim import Announced, Mailbox, Notice, NoticeKind, NoticeSource, Watchers
from snaplib.session import ExitStatus
from snaplib.store import Store
from snaplib.supervise.beginning import Beginning
from snaplib.supervise.ending import finish
from snaplib.supervise.entry import age_s, entry_of
from snaplib.supervise.inbox import Inbox
from snaplib.supervise.life import Life, TerminalChanged
from snaplib.supervise.lookout import Lookout
from snaplib.supervise.promise import Promise
from snaplib.supervise.recorder import Recorder
from snaplib.supervise.savecontext import SaveContext
from snaplib.supervise.saver import SaverFactory
from snaplib.supervise.settings import Settings
from snaplib.supervise.states import MOVES, State, StateMachine
from snaplib.supervise.warmsaver import warm_saver
from snaplib.task import Task, default_key

__all__ = ["WINDOW_S", "Supervisor"]

#: The window where nobody says anything else.
WINDOW_S = 120.0

#: How far apart signals may come that are sent to all processes of a job.
_SAME_SIGNAL_S = 0.2
_LOOK_S = 0.02


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
        tcp: What becomes of connected TCP sockets: ``auto``, ``established`` or ``close``, see `dump` and `restore`.
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
            much work is lost at most.  By default there are some only where the plan finds the window too short for
            anything.
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
        reclaim: Iterable[NoticeSource] = (),
        tcp: str = "auto",
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
        command = command_words(command)
        functions(saver=saver, on_event=on_event)
        reclaim = _sources(reclaim)
        if window_s is None:
            window_s = min((one.window_s for one in reclaim), default=WINDOW_S)
        self.settings = settings = Settings(
            command=command,
            store=store,
            key=default_key(command, Path.cwd()) if key is None else key,
            snapshot_id=snapshot_id,
            window_s=window_s,
            tcp=tcp,
            exit_saved=exit_saved,
            on_restore_failure=on_restore_failure,
            max_attempts=max_attempts,
            once=once,
            lazy=lazy,
            files=files,
            capture=tuple(patterns("capture", capture)),
            changed_files=changed_files,
            priority=priority,
            snapshot_every_s=snapshot_every_s,
            keep_snapshots=keep_snapshots,
            adopt_orphans=adopt_orphans,
            streams={"stdin": stdin, "stdout": stdout, "stderr": stderr},
        )
        self._make_saver = saver or warm_saver()
        self._task: Task | None = None
        self._on_event = on_event or (lambda _event: None)
        self._recorder = Recorder(store, settings.key, settings.command)
        self._machine = StateMachine(settings.key, self._tell)
        self._beginning = Beginning(settings, self._machine)
        #: What came for the task while it was being started.
        self._early_signals: list[int] = []
        self._inbox = Inbox()
        self._mailbox = Mailbox(settings.session_name, settings.key, window_s)
        self._watchers = Watchers([*reclaim, Announced(self._mailbox)], self._inbox.put)

    def __repr__(self) -> str:
        return f"Supervisor(key={self.settings.key!r}, state={self.state.value!r})"

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

        Raises:
            UsageError: The window is no number of seconds.
        """
        if window_s is not None:
            number("window_s", window_s, finite=True)
        self._inbox.put(Notice(source, window_s, kind, detail))

    def signal(self, number: int) -> bool:
        """Pass a signal on to the task.  From any thread or signal handler.

        Returns:
            Whether there is a task, or was one: before that nobody hears it.
        """
        if self._task is None:
            if self._beginning.starts:
                self._early_signals.append(number)
            return self._beginning.starts
        with contextlib.suppress(TaskEnded):
            self._task.signal(number)
        return True

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
        with KeyLock(self.settings.session_name, self.settings.key), self._mailbox:
            self._watchers.start()
            try:
                return self._run()
            except SnaplibError as error:
                self._failed(error.message, error.exit_code)
                raise
            except Exception as error:
                # A mistake of ours; whoever waits for this run is told all the same.
                self._failed(f"{type(error).__name__}: {error}", 1)
                raise
            finally:
                self._watchers.stop()

    def _failed(self, reason: str, exit_code: int) -> None:
        if MOVES[self.state]:
            self._machine.move(State.FAILED, "failed", reason=reason, exit_code=exit_code)

    def _run(self) -> int:
        settings, machine, beginning = self.settings, self._machine, self._beginning
        beginning.check_ready()
        found = beginning.left_over()
        if isinstance(found, ExitStatus):
            # The task ended while nobody looked after it.
            return finish(settings, machine, self._watchers, found)
        self._task = found
        if self._task is None and self._noticed():
            # Nothing runs yet: what there is to save is saved already.
            machine.move(State.SAVED, "not_started")
            return settings.exit_saved
        if self._task is None:
            status = beginning.ended_before()
            if status is not None:
                return status.shell_code
            self._task = beginning.resume_or_start()
            for early in self._early_signals:
                self.signal(early)
        status = self._look_after(self._task)
        in_window = self._in_window(status)
        return finish(settings, machine, self._watchers, status, in_window=in_window)

    def _look_after(self, task: Task) -> ExitStatus:
        settings, session = self.settings, task.session
        assert session is not None
        promise = Promise(settings.snapshot_every_s, age_s=age_s(task))
        with session.raw_terminal() as terminal:
            life = Life(
                task,
                session,
                terminal=terminal,
                saver=self._make_saver(self._save_context(task, promise)),
                lookout=Lookout(task, settings.tcp, self._inbox.tell),
                turn=Turn(Registry(settings.session_name), entry_of(settings, task)),
                inbox=self._inbox,
                machine=self._machine,
                window_s=settings.window_s,
                store=settings.store,
                promise=promise,
            )
            return life.run()

    def _tell(self, event: Event) -> None:
        self._on_event(event)
        self._mailbox.tell(event)
        # Last: the journal is in the store.
        self._recorder(event)

    def _noticed(self) -> bool:
        """Whether there is notice already."""
        return any(
            isinstance(one, Notice) and one.kind is NoticeKind.RECLAIM for one in self._inbox.look()
        )

    def _in_window(self, status: ExitStatus) -> bool:
        """Whether a task ended while its machine was about to go."""
        if self.state in (State.NOTICED, State.DUMPING):
            return True
        ends_s = time.monotonic() + _SAME_SIGNAL_S
        # Where all processes of a job are sent SIGTERM, the task may end before we hear of it.
        while status.was_ended_by(SIGTERM) and time.monotonic() < ends_s:
            if self._noticed():
                return True
            time.sleep(_LOOK_S)
        return False

    def _save_context(self, task: Task, promise: Promise) -> SaveContext:
        settings = self.settings
        return SaveContext(
            task=task,
            store=settings.store,
            key=settings.key,
            tcp=settings.tcp,
            files=settings.files,
            capture=settings.capture,
            window_s=settings.window_s,
            tell=self._inbox.tell,
            wake=self._inbox.wake,
            promise=promise,
        )


def _sources(reclaim: Any) -> tuple[NoticeSource, ...]:
    listed = isinstance(reclaim, Iterable) and not isinstance(reclaim, str)
    found = tuple(reclaim) if listed else ()
    if not listed or not all(hasattr(one, "window_s") for one in found):
        raise WrongType(
            f"reclaim is {reclaim!r}, and must be a list of sources of notices",
            hint="make it with snaplib.reclaim.choose_sources",
        )
    return found
