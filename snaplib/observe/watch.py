"""Watches a task: a profile a second, while the task runs and hardly notices."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Literal, Self

from snaplib.arguments import functions, has, number, one_of, task_of
from snaplib.errors import TaskEnded, UsageError
from snaplib.observe.armed import ARMS, Arm, ArmedMemory
from snaplib.observe.profiler import Profiler

if TYPE_CHECKING:
    from collections.abc import Callable

    from snaplib.observe.profile import Profile
    from snaplib.observe.tracking import PageTracker, ScanReport
    from snaplib.track import TrackableTask

__all__ = ["Watch"]


class Watch:
    """Watches a task from a thread of its own; use it as a context manager.

    Nothing of it stays when it is closed, or when its process ends in whatever way: programs, maps and
    armed memory go with their descriptors.

    Args:
        task: What to watch: a `snaplib.Task`.
        interval_s: Time between two profiles.
        arm: How writes to memory are seen: see `Arm`.
        tracker: A tracker to scan with instead of one that ``arm`` asks for; it stays the caller's, and
            nobody else may scan with it meanwhile.
        source: ``ebpf`` or ``proc`` to have that or nothing; by default eBPF where it works.
        on_profile: Called with every profile, the first in the thread that starts the watch and the others in the
            watching thread; it should be quick.  If it raises, the watch has failed.

    Raises:
        UsageError: The interval is not a time, or an argument is not what it can be.
        HostUnfit: ``ebpf`` was asked for and does not work here.
        TaskEnded: The task has ended.
    """

    def __init__(
        self,
        task: TrackableTask,
        interval_s: float = 1.0,
        *,
        arm: Arm = "sample",
        tracker: PageTracker | None = None,
        source: Literal["ebpf", "proc"] | None = None,
        on_profile: Callable[[Profile], None] | None = None,
    ) -> None:
        task_of(task)
        one_of("arm", arm, ARMS)
        one_of("source", source, (None, "ebpf", "proc"))
        functions(on_profile=on_profile)
        has("tracker", tracker, "arm", "track.Tracker")
        interval_s = number("interval_s", interval_s)
        if not 0.01 <= interval_s <= 3600:
            raise UsageError(f"an interval of {interval_s} s is not between 0.01 and 3600 s")
        self.interval_s = interval_s
        self._task = task
        self._armed = ArmedMemory(task, arm, tracker)
        self._profiler = Profiler(task, self._armed, source)
        self._on_profile = on_profile
        self._newest: Profile | None = None
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._ended = False
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"Watch({self._task!r}, interval_s={self.interval_s:g})"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin, and take the first profile.

        Raises:
            TaskEnded: The task has ended.
        """
        try:
            self._profiler.open()
            # It is the task that is looked at, and not a stranger who has its pid by now: it is still there.
            self._task.members()
            self._armed.begin()
            self._newest = self._profiler.take()
            if self._newest is None:
                raise TaskEnded(f"the task {self._task.pid} has ended")
            if self._on_profile is not None:
                self._on_profile(self._newest)
        except BaseException:
            self.close()
            raise
        self._thread = threading.Thread(
            target=self._run, name=f"watch-{self._task.pid}", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop, and leave nothing in the kernel or the task. The newest profile can still be had."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
            self._thread = None
        self._profiler.close()
        self._armed.disarm()

    @property
    def ended(self) -> bool:
        """Whether the task has ended; the newest profile is then its last."""
        return self._ended

    def profile(self) -> Profile:
        """Return the newest profile at once, however busy the task or the watch is.

        Raises:
            UsageError: The watch was not started.
            Exception: Whatever has made the watch fail since.
        """
        if self._error is not None:
            raise self._error
        if self._newest is None:
            raise UsageError("the watch is not started", hint="use it in a with block")
        return self._newest

    def wait(self, after: Profile | None = None, timeout_s: float | None = None) -> Profile | None:
        """Wait for a newer profile.

        Args:
            after: Newer than this one; than the newest now, by default.
            timeout_s: How long at most; for ever by default.

        Returns:
            The profile; None when the task or the watch ended, or the time was up.
        """
        old = self._newest if after is None else after
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not old or self._over, timeout=timeout_s)
        newest = self.profile()
        return None if newest is old else newest

    def feed(self, scan: ScanReport) -> None:
        """Take in a scan that someone else has made of the task, and armed anew.

        For a watch that does not scan itself, ``arm="none"``: whoever copies memory ahead knows best.
        """
        self._armed.feed(scan)

    def disarm(self) -> None:
        """Stop seeing writes, so that someone else can arm the task: only one can.

        What was seen is kept. The other's scans can be fed, so that the figures go on.
        """
        self._armed.disarm()

    @property
    def _over(self) -> bool:
        return self._ended or self._error is not None or self._stop.is_set()

    def _run(self) -> None:
        due_s = time.monotonic()
        try:
            while True:
                # On the beat, and if one was missed on the next: never two in a row to catch up.
                due_s = max(due_s + self.interval_s, time.monotonic())
                if self._stop.wait(due_s - time.monotonic()):
                    return
                profile = self._profiler.take()
                if profile is None:
                    self._ended = True
                    return
                self._newest = profile
                with self._changed:
                    self._changed.notify_all()
                if self._on_profile is not None:
                    self._on_profile(profile)
        except Exception as error:  # noqa: BLE001  whoever reads profiles must hear of it
            self._error = error
        finally:
            with self._changed:
                self._changed.notify_all()
