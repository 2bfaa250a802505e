"""The window of a notice, and the dumps that are tried in it: one when it is the task's turn, and again if it fails."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from snaplib.checkpoint import Deadline
from snaplib.errors import DeadlineExceeded, SnaplibError
from snaplib.node import Turn
from snaplib.reclaim import Notice, Window
from snaplib.store import Snapshot
from snaplib.supervise.figures import snapshot_figures
from snaplib.supervise.job import Job
from snaplib.supervise.saver import Saver
from snaplib.supervise.states import State, StateMachine
from snaplib.supervise.tries import Tries

__all__ = ["Saving"]

#: How often to look whether it is this task's turn.
_TURN_LOOK_S = 0.05
#: How long after a notice others on this node may hear of it: signals go to one after the other, services are asked.
_SIGNAL_GRACE_S = 0.3
_POLL_GRACE_S = 2.5

#: What has been told to end when the window did, and has not this long afterwards, is not waited for: CRIU may take
#: half a minute to clean up, and the task runs on by then.
_OVERDUE_S = 45.0

_NO_END = DeadlineExceeded(
    "the window is over, and what was to save the task does not come to its end; the task runs on",
    hint="look whether the store, or a file system that the task uses, answers; run the command again to take it over",
)
_NO_TURN = DeadlineExceeded(
    "the window is over, and other tasks of this node came first; the task runs on",
    hint="give the run a higher --priority, or fewer tasks to the node",
)


class Saving:
    """Saves one task when there is notice.

    Args:
        saver: How.
        turn: When it may be dumped, as the other tasks of the node have it.
        machine: Is ``running`` or ``copying`` before, ``saved`` or ``failed`` afterwards.
        done: Called with the `Job` of a dump once it is finished, in its thread.
        window_s: How long a window lasts when a notice does not say.
    """

    def __init__(
        self,
        saver: Saver,
        turn: Turn,
        machine: StateMachine,
        done: Callable[[Job], None],
        window_s: float,
    ) -> None:
        self._saver = saver
        self._turn = turn
        self._machine = machine
        self._done = done
        self._window_s = window_s
        self._window: Window | None = None
        self._job: Job | None = None
        self._deadline: Deadline | None = None
        self._tries = Tries()
        self._noticed_s = 0.0
        self._began_s = 0.0
        #: When the window was first seen to be over.
        self._over_s = math.inf
        #: Who comes before this task on its node, as was told last.
        self._ahead: tuple[str, ...] = ()
        #: A notice that came while the dump of a window that was cancelled is being called off.
        self._held: Notice | None = None

    @property
    def dumping(self) -> bool:
        """Whether a dump is under way."""
        return self._job is not None

    def noticed(self, notice: Notice) -> None:
        """Hear a notice: a window begins, or may become shorter."""
        seconds = notice.window_s if notice.window_s is not None else self._window_s
        # It may have waited for the end of a restore.
        seconds = max(0.0, seconds - (time.monotonic() - notice.heard_s))
        if self._window is None:
            self._open(notice, seconds)
        elif self._window.cancelled:
            self._held = notice
        elif self._window.notice(notice.source, seconds):
            self._moved(self._window, notice.source)

    def _open(self, notice: Notice, seconds: float) -> None:
        self._window = Window(notice.source, seconds)
        self._noticed_s = notice.heard_s
        self._tries, self._ahead = Tries(), ()
        self._machine.move(
            State.NOTICED,
            "notice",
            window_s=seconds,
            source=notice.source,
            detail=notice.detail,
        )
        expected = self._saver.expect()
        self._turn.noticed(
            self._window.end_s,
            expected.size_bytes,
            expected.seconds,
            grace_s=_SIGNAL_GRACE_S if notice.source == "signal" else _POLL_GRACE_S,
        )

    def cancelled(self, notice: Notice) -> None:
        """Hear that a source takes its notice back: if all have, the task runs on."""
        if self._held is not None and self._held.source == notice.source:
            self._held = None
        window = self._window
        if window is None or not window.cancel(notice.source):
            return
        if not window.cancelled:
            self._moved(window, notice.source)
        elif self._job is not None and self._deadline is not None:
            self._deadline.call_off()
        else:
            self._run_on(window)

    def _moved(self, window: Window, source: str) -> None:
        if self._deadline is not None:
            self._deadline.move(window.left_s)
        self._turn.moved(window.end_s)
        self._machine.tell("window_moved", window_s=window.left_s, source=source)

    def _run_on(self, window: Window) -> None:
        self._window = None
        self._turn.run_on()
        self._machine.move(State.RUNNING, "notice_cancelled", source=window.source)
        if self._held is not None:
            held, self._held = self._held, None
            self.noticed(held)

    def next_s(self) -> float | None:
        """Return in how many seconds there is something to do; None: nothing before a dump is finished."""
        if self._window is None or self._job is not None:
            return None
        return min(self._tries.next_try_s, self._window.end_s) - time.monotonic()

    def do_what_is_due(self) -> None:
        """Begin a dump if it is time for one, or give up if there is none left.

        Raises:
            SnaplibError: The window is over; why the last dump failed.
        """
        window = self._window
        if window is None or self._job is not None:
            return
        failures = self._tries.failures
        if window.left_s <= 0 and (failures or self._ahead):
            error = failures[-1] if failures else _NO_TURN
            self._machine.move(
                State.FAILED, "failed", reason=error.message, exit_code=error.exit_code
            )
            raise error
        if self._tries.due:
            self._begin(window)

    def _begin(self, window: Window) -> None:
        waiting = self._turn.begin()
        if waiting is not None:
            self._tries.put_off(_TURN_LOOK_S)
            if waiting.ahead != self._ahead:
                self._ahead = waiting.ahead
                self._machine.tell("waiting", ahead=len(waiting.ahead), start_s=waiting.start_s)
            return
        deadline = self._deadline = Deadline(window.left_s)
        failures = self._tries.failures
        self._began_s = time.monotonic()
        self._machine.move(
            State.DUMPING,
            "dumping",
            attempt=len(failures) + 1,
            left_s=deadline.left_s,
            notice_to_dump_s=self._began_s - self._noticed_s,
        )
        self._job = Job("dump", lambda: self._saver.save(deadline, failures), self._done)

    def is_of(self, job: Job) -> bool:
        """Return whether a job is the dump that is under way."""
        return job is self._job

    def finished(self, job: Job, alive: Callable[[], bool]) -> Snapshot | None:
        """Hear how the dump went.

        Args:
            job: The dump.
            alive: Tells whether the task still runs.

        Returns:
            The snapshot; None if it failed.
        """
        self._job = None
        try:
            snapshot: Snapshot = job.result()
        except Exception as error:  # noqa: BLE001 - a mistake of ours must not keep the next strategy from being tried
            self._turn.done()
            # If it has ended by itself, the session is about to tell.
            if alive():
                self._failed(error)
            return None
        self._turn.done(snapshot.raw_bytes, time.monotonic() - self._began_s)
        return snapshot

    def _failed(self, error: Exception) -> None:
        window = self._window
        assert window is not None
        if window.cancelled:
            self._run_on(window)
            return
        left_s = window.left_s
        reason = str(self._tries.failed(error, left_s))
        self._machine.move(State.NOTICED, "dump_failed", reason=reason, left_s=left_s)

    def tell_saved(self, snapshot: Snapshot) -> None:
        """Tell that the task is saved, and has ended."""
        self._machine.move(
            State.SAVED,
            "saved",
            **snapshot_figures(snapshot),
            dump_s=time.monotonic() - self._began_s,
        )

    def overdue_s(self) -> float | None:
        """Return in how many seconds something that is under way ought to have ended, the window being over by then."""
        if self._window is None:
            return None
        left_s = 0.0 if self._window.cancelled else self._window.left_s
        now_s = time.monotonic()
        if left_s > 0:
            self._over_s = math.inf
            return left_s + _OVERDUE_S
        self._over_s = min(self._over_s, now_s)
        return self._over_s + _OVERDUE_S - now_s

    def give_up(self) -> SnaplibError:
        """Tell that what is under way does not end; return the error."""
        self._machine.move(
            State.FAILED, "failed", reason=_NO_END.message, exit_code=_NO_END.exit_code
        )
        return _NO_END

    def leave(self, timeout_s: float) -> bool:
        """Wait for a dump that is under way, and give the turn back.

        Args:
            timeout_s: How long to wait.

        Returns:
            Whether it has ended.
        """
        ended = self._job is None or self._job.join(timeout_s)
        self._turn.leave()
        return ended
