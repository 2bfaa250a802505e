"""Notice given by hand, with ``snaplib notice``: every run hears it, whatever ``--reclaim`` says."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterable

from snaplib.errors import NoticeSourceFailed
from snaplib.kernel.inotify import FolderChanges
from snaplib.reclaim.mailbox import Mailbox, notice_end_s
from snaplib.reclaim.notice import Notice
from snaplib.reclaim.source import PolledSource, Report

__all__ = ["Announced"]

#: A change is heard at once; this often it is looked all the same, for whatever was missed.
_LOOK_AGAIN_S = 30.0


class Announced(PolledSource):
    """The notice in a run's mailbox.

    Args:
        mailbox: The run's.
        interval_s: Seconds between two looks, where changes cannot be heard of.
        clock: Tells the time in seconds, the same for all processes of the machine.
    """

    name = "announced"

    def __init__(
        self,
        mailbox: Mailbox,
        *,
        interval_s: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(interval_s=interval_s, clock=clock)
        self._mailbox = mailbox
        self.window_s = mailbox.window_s

    def ask(self) -> Iterable[Notice]:
        """Return a notice if there is one."""
        end_s = notice_end_s(self._mailbox.notice_path)
        if end_s is None:
            return []
        if math.isinf(end_s):
            raise NoticeSourceFailed(
                f"{self._mailbox.notice_path} is no notice - give it with `snaplib notice`"
            )
        left_s = max(0.0, end_s - self._clock())
        return [Notice(self.name, left_s, detail="by snaplib notice")]

    def watch(self, report: Report, stop: threading.Event) -> None:
        """Look whenever something in the folder changes."""
        with contextlib.ExitStack() as stack:
            try:
                changes = stack.enter_context(FolderChanges(self._mailbox.folder))
            except OSError:
                # A user may have only so many of them (fs.inotify.max_user_instances).
                super().watch(report, stop)
                return
            while not stop.is_set():
                self.step(report)
                changes.wait(_LOOK_AGAIN_S)
