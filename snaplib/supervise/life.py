"""The life of one task, from when it runs to when it has ended, is saved, or the window is over.

One loop in one thread hears of everything: the task's end, notices, and what its jobs have done.  Copying ahead and
dumping are such jobs, in threads of their own, so that nothing that is heard waits for them.
"""

from __future__ import annotations

import select
import time
from typing import Any

import attrs

from snaplib.checkpoint import Deadline
from snaplib.errors import DeadlineExceeded, SnaplibError
from snaplib.node import Turn
from snaplib.reclaim import Notice, NoticeKind, Window
from snaplib.session import ExitStatus, RawTerminal, Session
from snaplib.store import Snapshot, Store
from snaplib.supervise.copying import Copying
from snaplib.supervise.inbox import Inbox, Tell
from snaplib.supervise.job import Job
from snaplib.supervise.lookout import Lookout
from snaplib.supervise.saver import Saver
from snaplib.supervise.states import State, StateMachine
from snaplib.task import Task

__all__ = ["Life", "TerminalChanged"]

#: How long to wait before a failed dump is tried again, within the window.
_RETRY_AFTER_S = (1.0, 3.0, 10.0)
#: A dump that has less time than this is not tried again.
_LEAST_DUMP_S = 1.0
#: How often to look whether it is this task's turn.
_TURN_LOOK_S = 0.05
#: How long after a notice others on this node may hear of it: signals go to one after the other, services are asked.
_SIGNAL_GRACE_S = 0.3
_POLL_GRACE_S = 2.5


_NO_TURN = DeadlineExceeded(
    "the window is over, and other tasks of this node came first; the task runs on",
    hint="give the run a higher --priority, or fewer tasks to the node",
)


@attrs.frozen
class TerminalChanged:
    """A message: the terminal has another size, or is someone else's now."""


@attrs.define
class _Saving:
    """What is tried in one window."""

    window: Window
    failures: tuple[SnaplibError, ...] = ()
    #: When to begin the next try, by the monotonic clock; infinite once there is no time for one.
    next_try_s: float = 0.0
    deadline: Deadline | None = None
    began_s: float = 0.0
    noticed_s: float = 0.0
    #: Who comes before this task on its node, as was told last.
    ahead: tuple[str, ...] = ()


class Life:
    """Looks after a task that runs.

    Args:
        task: The task.
        session: What it runs in.
        terminal: Our terminal, where the task has one.
        saver: How it is saved.
        lookout: Tells what a dump would fail at.
        turn: When it may be dumped, as the other tasks of the node have it.
        inbox: Where notices come in.
        machine: The state, which is ``running``, and whom to tell.
        window_s: How long a window lasts when a notice does not say.
        store: Where snapshots are.
        snapshot_every_s: Seconds between two snapshots while the task runs; none are made by default.
    """

    def __init__(
        self,
        task: Task,
        session: Session,
        *,
        terminal: RawTerminal,
        saver: Saver,
        lookout: Lookout,
        turn: Turn,
        inbox: Inbox,
        machine: StateMachine,
        window_s: float,
        store: Store,
        snapshot_every_s: float | None = None,
    ) -> None:
        self._task = task
        self._session = session
        self._terminal = terminal
        self._lookout = lookout
        self._turn = turn
        self._inbox = inbox
        self._machine = machine
        self._window_s = window_s
        self._saver = saver
        self._copying = Copying(saver, store, machine, inbox.put, snapshot_every_s=snapshot_every_s)
        self._saving: _Saving | None = None
        self._dump: Job | None = None

    def run(self) -> ExitStatus:
        """Look after the task until it has ended or is saved.

        Returns:
            How it ended.

        Raises:
            SnaplibError: It could not be saved, and the window is over; it runs on.
        """
        try:
            while True:
                ended = self._wait()
                for message in self._inbox.take():
                    status = self._hear(message)
                    if status is not None:
                        return status
                if ended and not self._busy:
                    return self._ended()
                self._do_what_is_due(ended=ended)
        finally:
            self._leave()

    @property
    def _busy(self) -> bool:
        """Whether a job is under way that says itself what has become of the task."""
        return self._dump is not None or self._copying.active

    def _leave(self) -> None:
        self._copying.stop()
        self._copying.join()
        if self._dump is not None:
            self._dump.join()
        self._saver.close()
        self._turn.leave()
        for message in self._inbox.take():
            if isinstance(message, Tell):
                self._machine.tell(message.event, **message.details)

    def _wait(self) -> bool:
        """Wait until something is to be done; return whether the session has ended."""
        poll = select.poll()
        poll.register(self._inbox, select.POLLIN)
        if self._dump is None and not self._copying.stopping:
            poll.register(self._session.pidfd, select.POLLIN)
        due_s = self._next_due_s()
        ready = poll.poll(None if due_s is None else max(0.0, due_s) * 1000 + 1)
        return any(descriptor == self._session.pidfd for descriptor, _events in ready)

    def _next_due_s(self) -> float | None:
        """Return in how many seconds there is something to do; None: not before something is heard."""
        state = self._machine.state
        if state is State.RUNNING:
            times = [self._lookout.next_s(), self._copying.next_s()]
            return min((one for one in times if one is not None), default=None)
        if state is State.NOTICED and self._saving is not None and not self._busy:
            return min(self._saving.next_try_s, self._saving.window.end_s) - time.monotonic()
        return None

    def _do_what_is_due(self, *, ended: bool) -> None:
        state = self._machine.state
        if ended:
            self._copying.stop()
        if ended or self._busy:
            return
        if state is State.NOTICED and self._saving is not None:
            if self._saving.window.left_s <= 0 and (self._saving.failures or self._saving.ahead):
                self._give_up(self._saving)
            elif self._saving.next_try_s <= time.monotonic():
                self._begin_dump(self._saving)
        elif state is State.RUNNING:
            self._lookout.look_if_due()
            self._copying.begin_if_due()

    # -- what is heard

    def _hear(self, message: Any) -> ExitStatus | None:
        match message:
            case Job() if message is self._dump:
                self._dump = None
                return self._dumped(message)
            case Job():
                self._copying.finished(message)
            case Tell():
                self._machine.tell(message.event, **message.details)
            case TerminalChanged() if self._dump is None:
                self._terminal.refresh()
            case Notice(kind=NoticeKind.HINT):
                self._machine.tell("hint", source=message.source, detail=message.detail)
                self._saver.hint()
            case Notice(kind=NoticeKind.TROUBLE):
                self._machine.tell("source_failed", source=message.source, reason=message.detail)
            case Notice(kind=NoticeKind.CANCELLED):
                self._cancelled(message)
            case Notice():
                self._noticed(message)
        return None

    def _noticed(self, notice: Notice) -> None:
        seconds = notice.window_s if notice.window_s is not None else self._window_s
        # It may have waited for the end of a restore.
        seconds = max(0.0, seconds - (time.monotonic() - notice.heard_s))
        if self._saving is not None and not self._saving.window.cancelled:
            if self._saving.window.notice(notice.source, seconds):
                self._window_moved(self._saving, notice.source)
            return
        if self._machine.state is State.DUMPING:
            # The dump of a window that was cancelled is being called off: the next one begins after it.
            self._inbox.put(notice)
            return
        self._saving = _Saving(Window(notice.source, seconds), noticed_s=notice.heard_s)
        self._machine.move(
            State.NOTICED,
            "notice",
            window_s=seconds,
            source=notice.source,
            detail=notice.detail,
        )
        self._copying.stop()
        expected = self._saver.expect()
        self._turn.noticed(
            self._saving.window.end_s,
            expected.size_bytes,
            expected.seconds,
            grace_s=_SIGNAL_GRACE_S if notice.source == "signal" else _POLL_GRACE_S,
        )

    def _cancelled(self, notice: Notice) -> None:
        saving = self._saving
        if saving is None or not saving.window.cancel(notice.source):
            return
        if not saving.window.cancelled:
            self._window_moved(saving, notice.source)
        elif self._dump is not None and saving.deadline is not None:
            saving.deadline.call_off()
        else:
            self._run_on(notice.source)

    def _window_moved(self, saving: _Saving, source: str) -> None:
        left_s = saving.window.left_s
        if saving.deadline is not None:
            saving.deadline.move(left_s)
        self._turn.moved(saving.window.end_s)
        self._machine.tell("window_moved", window_s=left_s, source=source)

    def _run_on(self, source: str) -> None:
        self._saving = None
        self._turn.run_on()
        self._machine.move(State.RUNNING, "notice_cancelled", source=source)

    # -- saving

    def _begin_dump(self, saving: _Saving) -> None:
        waiting = self._turn.begin()
        if waiting is not None:
            saving.next_try_s = time.monotonic() + _TURN_LOOK_S
            if waiting.ahead != saving.ahead:
                saving.ahead = waiting.ahead
                self._machine.tell("waiting", ahead=len(waiting.ahead), start_s=waiting.start_s)
            return
        deadline = Deadline(saving.window.left_s)
        saving.deadline = deadline
        saving.began_s = time.monotonic()
        self._machine.move(
            State.DUMPING,
            "dumping",
            attempt=len(saving.failures) + 1,
            left_s=deadline.left_s,
            notice_to_dump_s=saving.began_s - saving.noticed_s,
        )
        self._dump = Job(
            "dump", lambda: self._saver.save(deadline, saving.failures), self._inbox.put
        )

    def _dumped(self, job: Job) -> ExitStatus | None:
        """Hear how a dump went; return how the task ended if it is over."""
        saving = self._saving
        assert saving is not None
        try:
            snapshot: Snapshot = job.result()
        except SnaplibError as error:
            self._turn.done()
            if not self._task.alive():
                # It has ended by itself, which the session is about to tell.
                return None
            self._dump_failed(saving, error)
            return None
        dump_s = time.monotonic() - saving.began_s
        self._turn.done(snapshot.raw_bytes, dump_s)
        status = self._session.wait()
        self._session.cleanup()
        self._machine.move(State.SAVED, "saved", **_figures(snapshot), dump_s=dump_s)
        return attrs.evolve(status, saved=snapshot.id)

    def _dump_failed(self, saving: _Saving, error: SnaplibError) -> None:
        if saving.window.cancelled:
            self._run_on(saving.window.source)
            return
        left_s = saving.window.left_s
        saving.failures = (*saving.failures, error)
        tries = len(saving.failures)
        pause_s = _RETRY_AFTER_S[tries - 1] if tries <= len(_RETRY_AFTER_S) else left_s
        again = left_s - pause_s >= _LEAST_DUMP_S
        saving.next_try_s = time.monotonic() + pause_s if again else float("inf")
        self._machine.move(State.NOTICED, "dump_failed", reason=str(error), left_s=left_s)

    def _give_up(self, saving: _Saving) -> None:
        error = saving.failures[-1] if saving.failures else _NO_TURN
        self._machine.move(State.FAILED, "failed", reason=error.message, exit_code=error.exit_code)
        raise error

    def _ended(self) -> ExitStatus:
        status = self._session.wait()
        self._session.cleanup()
        return status


def _figures(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "snapshot": snapshot.id,
        "memory_bytes": snapshot.raw_bytes,
        "stored_bytes": snapshot.stored_bytes,
        "frozen_s": snapshot.timings["frozen_s"],
        # None where nothing was copied ahead.
        "final_bytes": snapshot.extra.get("warm", {}).get("final_bytes"),
        "full_because": snapshot.extra.get("full_because"),
    }
