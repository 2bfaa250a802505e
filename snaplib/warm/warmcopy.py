"""A copy of a task's memory, kept up to date in rounds while the task runs.

A round lets the task stand still for a millisecond or two, to learn which pages have changed and to
have their next change seen; then they are read while the task runs on.  What it changes while they
are read is in the next round.  So a page in the log is as it is in the task, or is reported as
changed by the next look.
"""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from snaplib.arguments import functions, has, number, snapshot_store, task_of, text
from snaplib.errors import NoSuchSnapshot, StoreError, StoreUnreachable, TaskEnded
from snaplib.kernel.memory import trim_heap
from snaplib.store import RunSet
from snaplib.track import Basis, CannotTrack, open_tracker
from snaplib.warm.copier import copy_pages
from snaplib.warm.finalcopy import FinalCopy
from snaplib.warm.pace import Pace
from snaplib.warm.records import CopyFailed, Round
from snaplib.warm.taskpages import TaskPages, numbered

if TYPE_CHECKING:
    from collections.abc import Callable

    from snaplib.store import PageLogOptions, Parent, SnapshotWriter, Store
    from snaplib.task import Task
    from snaplib.track import DirtyScan, Tracker

__all__ = ["WarmCopy"]

_NOTHING = RunSet.of([], [])


class WarmCopy:
    """Keeps a copy of a task's memory in a store; `close` it, or use it as a context manager.

    Give it to `snaplib.dump`, which then only has to take what has changed since.  One thread at a
    time may use it.

    Args:
        task: What to copy.
        store: Where to.
        key: What its snapshots are found by; the task's own by default.
        pace: How fast to copy; as fast as possible by default.
        options: How to write pages.
        open_tracker: Makes what tells which pages changed.

    Raises:
        UsageError: An argument is not what it can be.
    """

    def __init__(
        self,
        task: Task,
        store: Store,
        *,
        key: str | None = None,
        pace: Pace | None = None,
        options: PageLogOptions | None = None,
        open_tracker: Callable[[Task], Tracker] = open_tracker,
    ) -> None:
        task_of(task)
        snapshot_store(store)
        if key is not None:
            text("key", key)
        functions(open_tracker=open_tracker)
        has("pace", pace, "pause_s", "Pace")
        has("options", options, "segment_bytes", "store.PageLogOptions")
        self.task = task
        self.store = store
        self.key = key or task.key
        self._pace = pace or Pace()
        self._options = options
        self._open_tracker = open_tracker
        self._tracker: Tracker | None = None
        self._writer: SnapshotWriter | None = None
        #: The next one, on its way.
        self._coming: Future[SnapshotWriter] | None = None
        #: The present one, while it is being got ready for the last copies.
        self._ready: Future[SnapshotWriter] | None = None
        self._parent: Parent | None = None
        self._final: FinalCopy | None = None
        #: Pages that have changed and are not copied yet, by their numbers in the log.
        self._owed = _NOTHING
        #: Whether the pages in the log that are not owed are known to be up to date.
        self._looked = False
        #: Whether every page has been copied once.
        self._seen_all = False
        self._rounds = 0

    def __repr__(self) -> str:
        return f"WarmCopy({self.task!r}, {self.store!r}, ready={self.ready})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def basis(self) -> Basis | None:
        """What is known about changes rests on this; None before the first round."""
        return self._tracker.basis if self._tracker is not None else None

    @property
    def ready(self) -> bool:
        """Whether there is a copy that a dump can build upon."""
        return self._looked

    @property
    def begun(self) -> bool:
        """Whether the store is ready for the next copy."""
        return self._writer is not None or (self._coming is not None and self._coming.done())

    @property
    def writer(self) -> SnapshotWriter:
        """The snapshot that the copies are of, not committed yet."""
        if self._writer is None:
            try:
                return self._begin()
            except NoSuchSnapshot:
                # What it builds upon has been removed meanwhile.
                self.give_up()
                return self._begin()
        return self._writer

    def begin_ahead(self) -> None:
        """Begin the next snapshot already, in a thread of its own: a dump is not to wait for what the store takes."""
        if self._writer is None and self._coming is None:
            pool = ThreadPoolExecutor(1, "snaplib-begin")
            self._coming = pool.submit(
                self.store.begin, self.key, self._options, parent=self._parent, find=True
            )
            pool.shutdown(wait=False)

    def _begin(self) -> SnapshotWriter:
        coming, self._coming = self._coming, None
        begun = None
        if coming is not None:
            # Else it is tried again.
            with contextlib.suppress(StoreError):
                begun = coming.result()
        # A task that was restored has most of its memory in the store.
        begun = begun or self.store.begin(self.key, self._options, parent=self._parent, find=True)
        begun.pages.set_background(background=True)
        self._writer = begun
        return begun

    def copy(
        self,
        stop: threading.Event | None = None,
        *,
        most_s: float | None = None,
        is_last: bool = False,
    ) -> Round:
        """Copy what has changed since the last round; the first copies everything.

        Args:
            stop: Once it is set this returns within some 50 ms, whatever the store does.  What has been read by then
                goes on to the store, and counts as copied: if that fails, the next round or dump tells.
            most_s: How long it may take; the next round then goes on with what is left.
            is_last: A dump follows at once: nothing is tidied up before, nothing waited for afterwards, and it ends
                when the store comes to a halt.

        Raises:
            CannotTrack: Nothing tells which pages of this task change.
            TaskEnded: The task has ended.
            StoreError: The store failed; the next round goes on with what it has, or begins anew.
        """
        if most_s is not None:
            number("most_s", most_s)
        stop = stop or threading.Event()
        began_s = time.monotonic()
        try:
            log = self.writer.pages
            tracker = self._tracked()
            self._pace.begin()
            pages = TaskPages.of(self.task)
            scan = tracker.scan(still=True)
            changed = self._note(scan, pages)
            until_s = began_s + most_s if most_s is not None else float("inf")

            def stopped() -> bool:
                if stop.is_set() or time.monotonic() >= until_s:
                    return True
                return is_last and log.halted()

            def pause(copied_bytes: int) -> None:
                stop.wait(min(self._pace.pause_s(copied_bytes), until_s - time.monotonic()))

            tried = _NOTHING
            # A device may still be filling pages unless all has stood still for a moment.
            if scan.still and (is_last or self._tidied_up(stopped)):
                tried = copy_pages(
                    log, pages.procfs, pages.pids, self._owed, stopped=stopped, copied=pause
                )
            self._owed -= tried
            self._seen_all = self._seen_all or not len(self._owed)
            if not is_last and log.drain(stop.is_set):
                log.rest()
                # What the codec took is not needed either before the next round.
                trim_heap()
        except StoreUnreachable:
            self.failed()
            raise
        except (StoreError, TaskEnded):
            self.give_up()
            raise
        self._rounds += 1
        return Round(
            number=self._rounds,
            changed_pages=changed,
            copied_pages=tried.pages,
            left_pages=self._owed.pages,
            log_pages=log.covered().pages,
            frozen_s=scan.frozen_s,
            duration_s=time.monotonic() - began_s,
        )

    def _tracked(self) -> Tracker:
        if self._tracker is None:
            tracker = self._open_tracker(self.task)
            if tracker.basis is Basis.NONE:
                tracker.close()
                # Of one that has just ended nobody can tell anything either.
                self.task.members()
                raise CannotTrack(
                    "nothing tells which pages of this task change: " + "; ".join(tracker.reasons)
                )
            self._tracker = tracker
        return self._tracker

    def _tidied_up(self, stopped: Callable[[], bool]) -> bool:
        """Have pages copied anew that are nearly all that is left of their segments.

        Returns:
            False if it was stopped while what came before was still on its way.
        """
        log = self.writer.pages
        if not log.drain(stopped):
            return False
        worn_out = self.writer.worn_out(seen_all=self._seen_all)
        log.forget(worn_out)
        self._owed |= worn_out
        return True

    def _note(self, scan: DirtyScan, pages: TaskPages) -> int:
        """Forget the copies of pages that have changed, and note that they are to be copied."""
        log = self.writer.pages
        outdated, solid = pages.changed(log, scan)
        log.forget(outdated)
        self._owed = (self._owed - outdated) | solid
        self._looked = True
        return solid.pages

    def prepare(self) -> Future[SnapshotWriter]:
        """Have everything ready for the last copies, in a thread of its own: the store may take its time.

        Returns:
            The snapshot that they are going to be of, or will be: only `freeze` may be called before it has come.
        """

        def ready() -> SnapshotWriter:
            try:
                writer = self._writer or self._begin()
            except NoSuchSnapshot as error:
                raise CopyFailed(f"what the copies build upon is gone: {error.message}") from error
            writer.prepare()
            return writer

        pool = ThreadPoolExecutor(1, "snaplib-prepare")
        self._ready = pool.submit(ready)
        pool.shutdown(wait=False)
        return self._ready

    def freeze(self) -> FinalCopy:
        """Begin the last copies of a snapshot, while somebody else holds the task still.

        Raises:
            TaskEnded: The task has ended.
        """
        ready = self._ready or self.prepare()
        tracker, pages = self._tracked(), TaskPages.of(self.task)
        scan = tracker.scan(frozen_by_caller=True)
        hidden = pages.expose_hidden(tracker)

        def settle() -> tuple[RunSet, RunSet]:
            self._note(scan, pages)
            log = self.writer.pages
            self._owed -= numbered(log, hidden)
            # What is code is left for the end, when CRIU is at rest.
            code = self._owed & pages.code(log)
            return self._owed - code, code

        # CRIU need not wait for more than the scan.
        self._final = FinalCopy(lambda: ready.result().pages, pages.procfs, pages.pids, settle)
        return self._final

    def committed(self) -> None:
        """Say that the snapshot has been committed, and the task runs on."""
        assert self._writer is not None
        self._ready = None
        self._end_final()
        # All that there is is in the snapshot.
        self._owed = _NOTHING
        self._parent = self._writer.as_parent()
        self._writer = None
        self._rounds = 0

    def failed(self) -> None:
        """Say that a dump failed, and the task runs on: the copies are as good as before, but for
        those that were on their way to a store that does not answer."""
        try:
            self._end_preparing()
            self._end_final()
            if self._writer is not None and self._writer.open:
                self._owed |= self._writer.retract()
                self._writer.pages.set_background(background=True)
            else:
                self.give_up()
        except (StoreError, CopyFailed):
            self.give_up()

    def _end_preparing(self) -> None:
        ready, self._ready = self._ready, None
        if ready is not None:
            # What went wrong is told whoever waits for it.
            ready.exception()

    def _end_final(self) -> None:
        final, self._final = self._final, None
        if final is not None:
            self._owed = final.end()

    def give_up(self) -> None:
        """Forget everything; the next round begins anew."""
        try:
            self._end_preparing()
            final, self._final = self._final, None
            if final is not None:
                with contextlib.suppress(CopyFailed):
                    final.end()
            coming, self._coming = self._coming, None
            if coming is not None:
                with contextlib.suppress(StoreError):
                    coming.result().abort()
            if self._writer is not None:
                self._writer.abort()
        finally:
            self._writer = None
            self._parent = None
            self._owed = _NOTHING
            self._looked = self._seen_all = False
            self._rounds = 0
            if self._tracker is not None:
                self._tracker.close()
                self._tracker = None

    def close(self) -> None:
        """Let go of the task, and of a copy that is not part of a snapshot; may be called again."""
        self.give_up()
