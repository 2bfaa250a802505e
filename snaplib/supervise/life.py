"""The life of one task, from when it runs to when it has ended, is saved, or the window is over.

One loop in one thread hears of everything: the task's end, notices, and what its jobs have done.  Copying ahead and
dumping are such jobs, in threads of their own, so that nothing that is heard waits for them.
"""

from __future__ import annotations

import select
import time
from typing import Any

import attrs

from snaplib.node import Turn
from snaplib.reclaim import Notice, NoticeKind
from snaplib.session import ExitStatus, RawTerminal, Session
from snaplib.store import Store
from snaplib.supervise.copying import Copying
from snaplib.supervise.inbox import Inbox, Tell
from snaplib.supervise.job import Job
from snaplib.supervise.lookout import Lookout
from snaplib.supervise.promise import Promise
from snaplib.supervise.saver import Saver
from snaplib.supervise.saving import Saving
from snaplib.supervise.states import MOVES, State, StateMachine
from snaplib.task import Task

__all__ = ["Life", "TerminalChanged"]

#: The loop looks around at least so often.
_LONGEST_WAIT_S = 600.0
#: How long what is tidied up in the end may take; and when the window is over.
_TIDY_UP_S = 30.0
_HURRY_S = 1.0
#: What a store is given up in after that.
_GRACE_S = 3.0
#: What is of no use once there is notice.
_PLANS = ("plan", "plan_failed")


@attrs.frozen
class TerminalChanged:
    """A message: the terminal has another size, or is someone else's now."""


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
        promise: How much work is lost at most if the machine goes without notice.
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
        promise: Promise | None = None,
    ) -> None:
        self._task = task
        self._session = session
        self._terminal = terminal
        self._lookout = lookout
        self._inbox = inbox
        self._machine = machine
        self._saver = saver
        self._store = store
        #: The newest of what is told only once the task runs on, by its name.
        self._held: dict[str, Tell] = {}
        self._copying = Copying(saver, store, machine, inbox.put, promise=promise)
        self._saving = Saving(saver, turn, machine, inbox.put, window_s)

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
        return self._saving.dumping or self._copying.active

    def _leave(self) -> None:
        self._copying.stop()
        is_over = self._machine.state is State.FAILED
        most_s = _HURRY_S if is_over else _TIDY_UP_S
        ends_s = time.monotonic() + most_s
        backend = self._store.backend
        try:
            # A store that does not answer must not keep us from ending.
            backend.limit_by(lambda: ends_s - time.monotonic())
            ended = [self._copying.join(most_s + _GRACE_S), self._saving.leave(most_s + _GRACE_S)]
            # They have taken the limit away with them.
            backend.limit_by(lambda: ends_s - time.monotonic())
            if all(ended):
                self._saver.close()
        finally:
            backend.limit_by(None)
        for message in self._inbox.take():
            if isinstance(message, Tell):
                self._tell(message)

    def _wait(self) -> bool:
        """Wait until something is to be done; return whether the session has ended."""
        poll = select.poll()
        poll.register(self._inbox, select.POLLIN)
        if not self._saving.dumping and not self._copying.stopping:
            poll.register(self._session.pidfd, select.POLLIN)
        due_s = self._next_due_s()
        ready = poll.poll(None if due_s is None else max(0.0, due_s) * 1000 + 1)
        return any(descriptor == self._session.pidfd for descriptor, _events in ready)

    def _next_due_s(self) -> float | None:
        """Return in how many seconds there is something to do; None: not before something is heard."""
        if self._machine.state is State.RUNNING:
            times = [self._lookout.next_s(), self._copying.next_s(), _LONGEST_WAIT_S]
            return min(one for one in times if one is not None)
        if self._machine.state is State.COPYING:
            return self._copying.next_s()
        return self._saving.overdue_s() if self._busy else self._saving.next_s()

    def _do_what_is_due(self, *, ended: bool) -> None:
        if ended:
            self._copying.stop()
        if not ended and self._machine.state is State.COPYING:
            self._copying.begin_if_due()
        if ended or self._busy:
            overdue_s = self._saving.overdue_s()
            if not ended and overdue_s is not None and overdue_s <= 0:
                raise self._saving.give_up()
            return
        if self._machine.state is State.NOTICED:
            self._saving.do_what_is_due()
        elif self._machine.state is State.RUNNING:
            for message in self._held.values():
                self._machine.tell(message.event, **message.details)
            self._held.clear()
            self._lookout.look_if_due()
            self._copying.begin_if_due()

    # -- what is heard

    def _hear(self, message: Any) -> ExitStatus | None:
        match message:
            case Job() if self._saving.is_of(message):
                return self._dumped(message)
            case Job():
                self._copying.finished(message)
            case Tell():
                self._tell(message)
            case TerminalChanged() if not self._saving.dumping:
                self._terminal.refresh()
            case Notice(kind=NoticeKind.HINT):
                self._machine.tell("hint", source=message.source, detail=message.detail)
                self._saver.hint()
            case Notice(kind=NoticeKind.TROUBLE):
                self._machine.tell("source_failed", source=message.source, reason=message.detail)
            case Notice(kind=NoticeKind.CANCELLED):
                self._saving.cancelled(message)
            case Notice():
                self._copying.stop()
                self._saving.noticed(message)
        return None

    def _tell(self, message: Tell) -> None:
        """Tell what somebody has found out, if it is still of use: no plan in a window, and nothing after the end."""
        if message.event in _PLANS and self._machine.state not in (State.RUNNING, State.COPYING):
            self._held[message.event] = message
        elif MOVES[self._machine.state]:
            self._machine.tell(message.event, **message.details)

    def _dumped(self, job: Job) -> ExitStatus | None:
        """Hear how a dump went; return how the task ended if it is over."""
        snapshot = self._saving.finished(job, self._task.alive)
        if snapshot is None:
            return None
        status = self._ended()
        self._saving.tell_saved(snapshot)
        return attrs.evolve(status, saved=snapshot.id)

    def _ended(self) -> ExitStatus:
        status = self._session.wait()
        self._session.cleanup()
        return status
