"""What a source of notices is, and what those that have to be asked again and again share."""

from __future__ import annotations

import abc
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from snaplib.errors import NoticeSourceFailed
from snaplib.reclaim.notice import Notice, NoticeKind

__all__ = ["NoticeSource", "PolledSource", "Report"]

Report = Callable[[Notice], None]

#: An end that is told again counts as another one only if it is that much earlier.
_SAME_END_S = 1.0


class NoticeSource(Protocol):
    """Tells when this machine is about to be taken away.  Anything of this shape can be given to a `Supervisor`.

    Attributes:
        name: What its notices are called by.
        window_s: Seconds that its notices leave where they do not say.
    """

    name: str
    window_s: float

    def watch(self, report: Report, stop: threading.Event) -> None:
        """Watch, in a thread of its own, until told to stop.

        Args:
            report: Called with each notice.
            stop: Set when nobody listens any more; the thread is not waited for.
        """
        ...

    def acknowledge(self) -> None:
        """Hear that the task is saved: the machine may go.  Return within two seconds."""
        ...


class PolledSource(abc.ABC):
    """A source that has to be asked.

    What it answers is what is announced *now*: a notice is reported when it appears, again when it names an earlier
    end, and taken back when it is not there any more.  An answer that does not come takes nothing back.

    Args:
        interval_s: Seconds between two questions.
        clock: Tells the time in seconds, never backwards.
    """

    name: str
    window_s: float

    def __init__(
        self, *, interval_s: float = 2.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.interval_s = interval_s
        self._clock = clock
        self._end_s: float | None = None
        self._hinted = False
        self._in_trouble = False

    @abc.abstractmethod
    def ask(self) -> Iterable[Notice]:
        """Return the notices that stand at present.

        Raises:
            NoticeSourceFailed: There was no answer, or none that can be understood.
        """

    def acknowledge(self) -> None:  # noqa: B027 - most want to hear nothing
        """Hear that the task is saved."""

    def watch(self, report: Report, stop: threading.Event) -> None:
        """Ask again and again."""
        while not stop.is_set():
            began = self._clock()
            self.step(report)
            stop.wait(max(0.05, self.interval_s - (self._clock() - began)))

    def step(self, report: Report) -> None:
        """Ask once, and report what is new.

        Args:
            report: Called with each new notice.
        """
        try:
            standing = list(self.ask())
        except NoticeSourceFailed as error:
            if not self._in_trouble:
                self._in_trouble = True
                report(Notice(self.name, kind=NoticeKind.TROUBLE, detail=str(error)))
            return
        self._in_trouble = False
        ends = [notice for notice in standing if notice.kind is NoticeKind.RECLAIM]
        hints = [notice for notice in standing if notice.kind is NoticeKind.HINT]
        if hints and not self._hinted:
            report(hints[0])
        self._hinted = bool(hints)
        self._report_end(ends, report)

    def _report_end(self, ends: list[Notice], report: Report) -> None:
        if not ends:
            if self._end_s is not None:
                self._end_s = None
                report(Notice(self.name, kind=NoticeKind.CANCELLED))
            return
        first = min(ends, key=self._left_s)
        end_s = self._clock() + self._left_s(first)
        # One that says no time runs from when it was first seen.
        if self._end_s is None or (
            first.window_s is not None and end_s < self._end_s - _SAME_END_S
        ):
            self._end_s = end_s
            report(first)

    def _left_s(self, notice: Notice) -> float:
        return self.window_s if notice.window_s is None else notice.window_s
