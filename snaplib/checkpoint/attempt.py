"""One attempt at a dump: CRIU freezes the task and sends its pages through our page server into the store.

The order is what makes it safe.  CRIU notifies us in ``post-dump``, when its images are complete and the tasks still
frozen: only there, and only if the snapshot could be committed, do we agree to the end that was asked for.  A no, an
exception, a deadline or our own death makes CRIU let the tasks run on.
"""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import attrs

from snaplib.checkpoint.diagnosis import dump_failure
from snaplib.checkpoint.dumprequest import dump_request, is_no_image
from snaplib.checkpoint.ending import finish_end
from snaplib.checkpoint.findings import Findings
from snaplib.checkpoint.images import write_empty_images
from snaplib.checkpoint.leftlocks import free_connections
from snaplib.checkpoint.netlock import (
    limit_lock,
    remove_empty_lock,
    remove_old_locks,
)
from snaplib.checkpoint.noting import promise_json
from snaplib.checkpoint.opening import LateSink
from snaplib.checkpoint.order import DumpOrder
from snaplib.checkpoint.pageserver import PageServer
from snaplib.checkpoint.tracked import TrackedDump
from snaplib.checkpoint.watchdog import Watchdog
from snaplib.criu import CriuError, Notification, Swrk
from snaplib.errors import SnaplibError, StoreError, TaskEnded
from snaplib.store import Snapshot, SnapshotWriter

__all__ = ["Attempt"]

#: How long CRIU may take to end once it has answered.
_CRIU_END_S = 30.0


@attrs.define
class Attempt:
    """One run of CRIU that dumps a task.

    Attributes:
        order: What is wanted.
        coming: The snapshot that is to come of it, which may still be being begun.
        images: An empty folder for CRIU's images.
        tracked: What was copied ahead.
        full_because: Why it does not build upon what was copied ahead.
    """

    order: DumpOrder
    coming: Future[SnapshotWriter]
    images: Path
    tracked: TrackedDump | None = None
    full_because: str = ""

    _started: float = attrs.field(factory=time.monotonic, init=False)
    _frozen_at: float | None = attrs.field(default=None, init=False)
    _is_shell_job: bool = attrs.field(default=False, init=False)
    _agreed: bool = attrs.field(default=False, init=False)
    _snapshot: Snapshot | None = attrs.field(default=None, init=False)
    _findings: Findings = attrs.field(init=False)
    _server: PageServer = attrs.field(init=False)
    _swrk: Swrk = attrs.field(init=False)
    _watchdog: Watchdog = attrs.field(init=False)

    @property
    def writer(self) -> SnapshotWriter:
        """The snapshot that is to come of it; waits until it is begun."""
        return self.coming.result()

    @property
    def page_server(self) -> PageServer:
        """What received the pages."""
        return self._server

    @property
    def snapshot(self) -> Snapshot:
        """What came of it."""
        assert self._snapshot is not None
        return self._snapshot

    @property
    def taken_bytes(self) -> int:
        """Bytes of pages that were taken now, and not copied ahead."""
        return self.tracked.taken_bytes if self.tracked else self._server.page_bytes

    def take(self) -> None:
        """Run CRIU and commit the snapshot."""
        order, tracked = self.order, self.tracked
        session = order.task.session
        if order.leave_running:
            # A task that is to work on does not stand still for what can be done before.
            self.coming.result()
        with contextlib.ExitStack() as stack:
            self._server = PageServer(
                tracked.sink if tracked else LateSink(self.coming),
                has_parent=tracked is not None and tracked.leaves_out,
            )
            stack.callback(self._server.close)
            self._server.start()
            page_fd = self._server.criu_end.fileno()
            self._findings = Findings.begin(order, self.coming)
            stack.callback(self._findings.close)
            enter = session.enter_prefix() if session else []
            self._swrk = Swrk(
                order.criu,
                enter=enter,
                pass_fds=[page_fd],
                environment=tracked.environment if tracked else None,
            )
            self._server.criu_end.close()
            if session:
                session.hold()
            ended = False
            try:
                self._watchdog = Watchdog(
                    order.deadline, [self._server.hang_up, self._swrk.hang_up]
                )
                with self._watchdog:
                    self._converse(page_fd)
                ended = not order.leave_running
            except BaseException:
                ended = self._end_was_reached()
                if not ended:
                    self._outlived()
                    if self._swrk.ended():
                        # Only if it was killed it has left something.
                        with contextlib.suppress(SnaplibError, OSError):
                            free_connections(order.task)
                    raise
            finally:
                if session:
                    with contextlib.suppress(TaskEnded):
                        session.release(ended=ended)
            if order.leave_running:
                # Whoever calls it off is in a hurry, whatever the store does.
                if not self.writer.pages.drain(lambda: order.deadline.left_s <= 0):
                    raise order.too_late()
                self._commit()
            else:
                if not self._findings.connections:
                    remove_empty_lock(self.images)
                remove_old_locks()

    def _outlived(self) -> None:
        """The task runs on: resuming a snapshot that there is already would do again what it does from now on."""
        order = self.order
        too_late = self._watchdog.expired and not order.deadline.called_off
        if self._snapshot is None or (order.stand_in and too_late):
            # Its machine may go any moment now: then the snapshot is what there is.
            return
        # One that cannot be removed is one too many: whoever resumes it is told what has become of its task.
        with contextlib.suppress(StoreError):
            order.store.remove(self._snapshot.id)

    def _end_was_reached(self) -> bool:
        if not self._agreed:
            return False
        self._swrk.finish(_CRIU_END_S)
        return finish_end(self.order.task, self._findings.members)

    def _converse(self, page_fd: int) -> None:
        """Let CRIU work; turn what goes wrong into an error that says why."""
        task = self.order.task
        self._is_shell_job = task.session is None and task.session_leader_outside()
        request = dump_request(
            self._swrk.messages,
            self.order,
            self.tracked,
            images=self.images,
            page_fd=page_fd,
            shell_job=self._is_shell_job,
        )
        try:
            self._swrk.request(request, on_notify=self._on_notify)
        except CriuError as error:
            raise self._diagnose(error) from error
        finally:
            self._swrk.finish(_CRIU_END_S)
        if self._watchdog.expired:
            raise self.order.too_late()

    def _on_notify(self, notification: Notification) -> bool:
        if notification.stage == "query-ext-files":
            self._frozen_at = self.order.stopwatch.frozen_s = time.monotonic()
            self._when_frozen()
        elif notification.stage == "post-dump":
            self._when_complete()
        return not self._watchdog.expired

    def _when_frozen(self) -> None:
        order = self.order
        order.progress("frozen", 0)
        if self.tracked:
            self.tracked.frozen()
        self._findings.when_frozen()

    def _when_complete(self) -> None:
        """The images are complete and the tasks frozen: take the streams' state, and commit if this is the end."""
        order, session = self.order, self.order.task.session
        # CRIU has closed its side by now; nothing is left but to read our own last lines.
        self._server.finish(timeout_s=_CRIU_END_S)
        if self.tracked:
            self.tracked.complete(timeout_s=order.deadline.left_s)
        write_empty_images(self.images, self._server.empty)
        order.stopwatch.received_s = time.monotonic()
        order.stopwatch.receiving_s = self._server.receiving_s
        order.progress("dumped", self._server.page_bytes)
        self._findings.when_complete(self.images)
        if not order.leave_running:
            if self._findings.connections:
                limit_lock(self.images, self._findings.connections)
            self._commit()
            if session:
                assert self._snapshot is not None
                session.saved(self._snapshot.id, end=False)
            self._agreed = True

    def _commit(self) -> None:
        if self._watchdog.expired:
            raise self.order.too_late()
        self.writer.put_directory(self.images, exclude=is_no_image, wait=False)
        now = time.monotonic()
        frozen_at = self._frozen_at if self._frozen_at is not None else now
        self._snapshot = self.writer.commit(
            **self._findings.description,
            extra=self._extra(),
            timings={
                "before_freeze_s": frozen_at - self._started,
                "frozen_s": now - frozen_at,
                "memory_s": self._server.receiving_s,
                # The last moments, in which the manifest itself is put, cannot be in it.
                "dump_s": now - self.order.stopwatch.began_s,
            },
        )
        self.order.stopwatch.durable_s = time.monotonic()
        self.order.progress("committed", self._server.page_bytes)

    def _extra(self) -> dict[str, Any]:
        extra: dict[str, Any] = {
            "shell_job": self._is_shell_job,
            **self._findings.more(self.images),
        }
        if self.order.promise:
            extra["forecast"] = promise_json(self.order.promise)
        if self.tracked:
            extra["warm"] = self.tracked.figures()
        if self.full_because:
            extra["full_because"] = self.full_because
        return extra

    def _diagnose(self, error: CriuError) -> SnaplibError:
        """Find the reason behind CRIU's failure: the store's, the deadline's, or what its log says."""
        if self._watchdog.expired:
            return self.order.too_late()
        if not self.order.task.alive():
            return TaskEnded(f"the task {self.order.task.pid} ended while it was being dumped")
        failure = self._server.failure
        if isinstance(failure, SnaplibError):
            return failure
        return dump_failure(error, self.order.task.pid, self.images, failure)
