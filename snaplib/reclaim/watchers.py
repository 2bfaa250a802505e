"""Watching several sources at once, each in a thread of its own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence

from snaplib.errors import SnaplibError
from snaplib.reclaim.notice import Notice, NoticeKind
from snaplib.reclaim.source import NoticeSource, Report

__all__ = ["Watchers"]


class Watchers:
    """The threads that watch sources.

    Args:
        sources: What to watch.
        report: Called with each notice, in some thread.
    """

    def __init__(self, sources: Sequence[NoticeSource], report: Report) -> None:
        self.sources = tuple(sources)
        self._report = report
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin."""
        for source in self.sources:
            # A source that hangs must not keep us from ending.
            threading.Thread(
                target=self._watch, args=(source,), name=f"snaplib-{source.name[:20]}", daemon=True
            ).start()

    def stop(self) -> None:
        """Let the threads end, without waiting for them."""
        self._stop.set()

    def acknowledge(self) -> None:
        """Tell the sources that the task is saved."""
        for source in self.sources:
            # It is: whether the machine goes a little earlier or later does not matter any more.
            with contextlib.suppress(SnaplibError):
                source.acknowledge()

    def _watch(self, source: NoticeSource) -> None:
        def report(notice: Notice) -> None:
            if not self._stop.is_set():
                self._report(notice)

        try:
            source.watch(report, self._stop)
        except Exception as error:  # noqa: BLE001 - somebody's own source; the others watch on
            detail = f"{type(error).__name__}: {error}"
            report(Notice(source.name, kind=NoticeKind.TROUBLE, detail=detail))
