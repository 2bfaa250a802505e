"""One dump: CRIU freezes the task and sends its pages through our page server into the store.

The order is what makes it safe.  CRIU notifies us in ``post-dump``, when its images are complete and the tasks still
frozen: only there, and only if the snapshot could be committed, do we agree to the end that was asked for.  A no, an
exception, a deadline or our own death makes CRIU let the tasks run on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import attrs

from snaplib.checkpoint.deadline import Deadline
from snaplib.checkpoint.describe import describe_host, describe_task
from snaplib.checkpoint.filekeeper import FILE_MODES, FilesBefore, keep_files
from snaplib.checkpoint.images import write_empty_images
from snaplib.checkpoint.lazy import wait_for_memory
from snaplib.checkpoint.netlock import remove_empty_lock
from snaplib.checkpoint.noting import (
    Stopwatch,
    measure_work,
    note,
    promise_from,
    promise_json,
    promise_of,
)
from snaplib.checkpoint.pageserver import PageServer
from snaplib.checkpoint.preflight import preflight
from snaplib.checkpoint.streams import write_streams
from snaplib.checkpoint.tracked import TrackedDump
from snaplib.checkpoint.watchdog import Watchdog
from snaplib.checkpoint.written import WrittenFile, written_files
from snaplib.criu import (
    PARENT_NAMES,
    Criu,
    CriuError,
    Notification,
    Swrk,
    failure_reasons,
    find_criu,
    log_tail,
    remedy_for,
)
from snaplib.errors import (
    CannotDump,
    CriuFailure,
    DeadlineExceeded,
    DumpFailed,
    RootRequired,
    SnaplibError,
    StoreUnreachable,
    TaskEnded,
    UsageError,
)
from snaplib.forecasting import Forecast, Promise, StrategyForecast
from snaplib.planning import Plan
from snaplib.runtime import scratch_dir
from snaplib.store import PageLogOptions, Snapshot, SnapshotWriter, Store
from snaplib.task import Member, Task
from snaplib.track import CannotTrack
from snaplib.warm import CopyFailed, WarmCopy

if TYPE_CHECKING:
    from snaplib.observe import Watch

__all__ = ["GHOST_LIMIT_BYTES", "TCP_MODES", "dump"]

#: Deleted files up to this size are kept in the snapshot.
GHOST_LIMIT_BYTES = 1 << 30
TCP_MODES = ("established", "close")

_LOG = "dump.log"
#: How much of the deadline the standard streams' readers get to take what is under way.
_DRAIN_SHARE = 0.1
_DRAIN_MAX_S = 5.0
#: What makes a dump with copies fail and says nothing against one without.  Not when time is up, or the store failed.
_NOT_TRACKED = (CopyFailed, CannotTrack, CriuFailure)
#: How long CRIU may take to end once it has answered.
_CRIU_END_S = 30.0

Progress = Callable[[str, float], None]


def dump(
    task: Task,
    store: Store,
    *,
    key: str | None = None,
    leave_running: bool = False,
    deadline_s: float | Deadline = 120.0,
    tcp: str = "established",
    files: str | None = None,
    capture: Collection[str] = (),
    skip_preflight: bool = False,
    stand_in: bool = False,
    warm: WarmCopy | None = None,
    progress: Progress | None = None,
    plan: Plan | Forecast | StrategyForecast | None = None,
    watch: Watch | None = None,
) -> Snapshot:
    """Save a task in a store.

    Args:
        task: What to save.
        store: Where to.
        key: What the snapshot is found by later; the task's own by default.
        leave_running: Whether the task runs on afterwards.  If not, it ends, but only once the snapshot is durable.
        deadline_s: Seconds after which the dump is given up and the task runs on; a `Deadline` may be moved, or called
            off, while the dump is under way.
        tcp: What becomes of connected TCP sockets: ``established`` keeps them, ``close`` closes them.
        files: Whether the contents of the files that the task writes go with the snapshot (``capture``) or only what
            they are (``reference``); by default they do where the store is not on this machine.
        capture: Patterns of files whose contents go with the snapshot in any case, whether the task has them open or
            not; ``**`` stands for any folders.
        skip_preflight: Whether to try even what preflight says must fail.
        stand_in: Whether the snapshot of a task that runs on is to take its place should it be lost: a restore then
            cuts off what the task has appended to its files since, and fails if they have changed otherwise.
        warm: What was copied ahead, of this task and into this store: only what has changed since is taken now.  If
            that turns out not to be possible, all of it is taken, in the same time.  When the task runs on, the next
            dump with the same copies is incremental to this one.
        progress: Called with a stage and the bytes of pages so far.
        plan: What is expected of this dump; it is kept with the snapshot, beside what came of it, and a plan says
            how hard to compress.
        watch: Watches the task: what is expected is forecast from its newest profile where no plan says it.

    Returns:
        The snapshot, durable in the store.

    Raises:
        CannotDump: The task holds something that cannot be dumped; it was not touched.
        DumpFailed: CRIU failed; the task runs on, and says why where CRIU's log does.
        DeadlineExceeded: It took too long; the task runs on.
        StoreError: The store failed; the task runs on.
    """
    if tcp not in TCP_MODES:
        raise UsageError(f"tcp={tcp!r} is not one of {', '.join(TCP_MODES)}")
    if files is not None and files not in FILE_MODES:
        raise UsageError(f"files={files!r} is not one of {', '.join(FILE_MODES)}")
    deadline = deadline_s if isinstance(deadline_s, Deadline) else Deadline(deadline_s)
    if deadline.left_s <= 0:
        raise UsageError(f"a deadline of {deadline.seconds:g} s leaves no time for a dump")
    if os.geteuid() != 0:
        raise RootRequired("dumping a task needs root")
    stopwatch, wall_s, before = Stopwatch(), time.time(), store.backend.throughput()
    criu = find_criu()
    if not skip_preflight:
        _refuse_fatal(task, tcp, leave_running=leave_running)
    if task.session:
        wait_for_memory(task.session.folder, deadline.left_s)
    promise = promise_of(plan, deadline.seconds) or promise_from(watch, store, deadline.seconds)
    work = measure_work(task)
    common: dict[str, Any] = {
        "task": task,
        "store": store,
        "criu": criu,
        "leave_running": leave_running,
        "deadline": deadline,
        "tcp": tcp,
        "stand_in": stand_in and leave_running,
        "files": files or ("reference" if store.backend.local else "capture"),
        # Not resolved: a pattern is no path yet.
        "capture": tuple(os.path.abspath(pattern) for pattern in capture),  # noqa: PTH100
        "progress": progress or (lambda _stage, _bytes: None),
        "promise": promise,
        "stopwatch": stopwatch,
    }
    # What the store does not answer in time is given up, so that the task does not stand still for it.
    store.backend.limit_by(lambda: deadline.left_s)
    try:
        taken = _taken(warm, key or task.key, _page_log_options(plan), **common)
    finally:
        store.backend.limit_by(None)
    snapshot = taken.snapshot
    note(
        task,
        store,
        snapshot,
        work=attrs.evolve(
            work,
            sent_bytes=taken.taken_bytes,
            runs=taken.page_server.runs,
            incremental=taken.tracked is not None,
        ),
        stopwatch=stopwatch,
        codec=taken.writer.pages.codec_figures,
        before=before,
        promise=promise,
        wall_s=wall_s,
    )
    return snapshot


def _taken(warm: WarmCopy | None, key: str, options: PageLogOptions | None, **common: Any) -> _Dump:
    """Take what has changed since the copies were made, or everything."""
    reason = ""
    if warm is not None and warm.ready:
        try:
            return _tracked(warm, **common)
        except DeadlineExceeded:
            raise
        except _NOT_TRACKED as error:
            # The task runs on, and there is time: take everything.
            reason = str(error)
            common["progress"]("full", 0)
    with common["store"].begin(key, options) as writer, scratch_dir("dump") as images:
        taken = _Dump(**common, writer=writer, images=images, full_because=reason)
        taken.take()
    return taken


def _tracked(warm: WarmCopy, *, criu: Criu, leave_running: bool, **common: Any) -> _Dump:
    """Take what has changed since the copies were made."""
    try:
        tracked = TrackedDump.prepare(warm, criu)
        with scratch_dir("dump") as images:
            taken = _Dump(
                **common,
                criu=criu,
                leave_running=leave_running,
                writer=tracked.writer,
                images=images,
                tracked=tracked,
            )
            taken.take()
    except (DeadlineExceeded, StoreUnreachable):
        warm.failed()
        raise
    except BaseException:
        warm.give_up()
        raise
    if leave_running:
        warm.committed()
    else:
        warm.close()
    return taken


def _page_log_options(
    plan: Plan | Forecast | StrategyForecast | None,
) -> PageLogOptions | None:
    return PageLogOptions(codec=plan.codec, level=plan.level) if isinstance(plan, Plan) else None


def _refuse_fatal(task: Task, tcp: str, *, leave_running: bool) -> None:
    # A file that has lost its name is kept by a link that CRIU takes away when the task runs on.
    also = ("link-lost",) if leave_running else ()
    fatal = [one for one in preflight(task, tcp=tcp) if one.fatal or one.code in also]
    if not fatal:
        return
    first = fatal[0]
    more = f" (and {len(fatal) - 1} more)" if len(fatal) > 1 else ""
    raise CannotDump(
        f"pid {first.pid} ({first.comm}), {first.subject}: {first.message}{more}", hint=first.remedy
    )


@attrs.define
class _Dump:
    """The state of one dump."""

    task: Task
    store: Store
    writer: SnapshotWriter
    images: Path
    criu: Criu
    leave_running: bool
    deadline: Deadline
    tcp: str
    stand_in: bool
    files: str
    capture: tuple[str, ...]
    progress: Progress
    promise: Promise | None
    stopwatch: Stopwatch
    tracked: TrackedDump | None = None
    full_because: str = ""

    _started: float = attrs.field(factory=time.monotonic, init=False)
    _frozen_at: float | None = attrs.field(default=None, init=False)
    _description: dict[str, Any] = attrs.field(factory=dict, init=False)
    _files_before: FilesBefore = attrs.field(factory=FilesBefore, init=False)
    _kept_files: dict[str, Any] = attrs.field(factory=dict, init=False)
    _members: tuple[Member, ...] = attrs.field(default=(), init=False)
    _written: list[WrittenFile] = attrs.field(factory=list, init=False)
    _is_shell_job: bool = attrs.field(default=False, init=False)
    _agreed: bool = attrs.field(default=False, init=False)
    _snapshot: Snapshot | None = attrs.field(default=None, init=False)
    _server: PageServer = attrs.field(init=False)
    _swrk: Swrk = attrs.field(init=False)
    _watchdog: Watchdog = attrs.field(init=False)

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
        session = self.task.session
        with contextlib.ExitStack() as stack:
            tracked = self.tracked
            self._server = PageServer(
                tracked.sink if tracked else self.writer.pages,
                has_parent=tracked is not None and tracked.leaves_out,
            )
            stack.callback(self._server.close)
            self._server.start()
            page_fd = self._server.criu_end.fileno()
            if self.files == "capture" or self.capture:
                self._files_before = FilesBefore.claimed(self.store, self.writer)
            enter = session.enter_prefix() if session else []
            self._swrk = Swrk(
                self.criu,
                enter=enter,
                pass_fds=[page_fd],
                environment=tracked.environment if tracked else None,
            )
            self._server.criu_end.close()
            if session:
                session.hold()
            try:
                self._watchdog = Watchdog(self.deadline, [self._server.hang_up, self._swrk.hang_up])
                with self._watchdog:
                    self._converse(self._request(page_fd))
            except BaseException:
                if not self._end_was_reached():
                    if self._snapshot is not None:
                        # The task runs on: what it does from now on would be done twice if this
                        # snapshot were ever resumed.
                        self.store.remove(self._snapshot.id)
                    raise
            finally:
                if session:
                    with contextlib.suppress(TaskEnded):
                        session.release()
            if self.leave_running:
                self._commit()
            else:
                remove_empty_lock(self.images)

    def _end_was_reached(self) -> bool:
        """Whether CRIU had begun to end the task when something went wrong: then the snapshot is what is left of it.

        Every member still there means that CRIU has let them run on.  If one is gone, so must be the others.
        """
        if not self._agreed:
            return False
        self._swrk.finish(_CRIU_END_S)
        survivors = [member.pid for member in self._members if self.task.is_member(member)]
        if len(survivors) == len(self._members):
            return False
        for pid in survivors:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return True

    def _request(self, page_fd: int) -> Any:
        messages = self._swrk.messages
        session = self.task.session
        self._is_shell_job = session is None and self.task.session_leader_outside()
        request = messages.criu_req(type=messages.DUMP)
        opts = request.opts
        opts.images_dir_fd = -1
        opts.images_dir = str(self.images)
        opts.log_file = _LOG
        opts.log_level = 2
        opts.pid = self.task.ns_pid if session else self.task.pid
        opts.leave_running = self.leave_running
        opts.notify_scripts = True
        opts.ps.fd = page_fd
        opts.ext_unix_sk = True
        opts.file_locks = True
        opts.link_remap = True
        opts.ghost_limit = GHOST_LIMIT_BYTES
        opts.manage_cgroups_mode = messages.IGNORE
        opts.network_lock = messages.NFTABLES
        opts.shell_job = self._is_shell_job
        opts.tcp_established = self.tcp == "established"
        opts.tcp_close = self.tcp == "close"
        if session:
            opts.external.extend(session.streams().external())
        if self.tracked:
            self.tracked.ask(opts, self.images)
        return request

    def _converse(self, request: Any) -> None:
        """Let CRIU work; turn what goes wrong into an error that says why."""
        try:
            self._swrk.request(request, on_notify=self._on_notify)
        except CriuError as error:
            raise self._diagnose(error) from error
        finally:
            self._swrk.finish(_CRIU_END_S)
        if self._watchdog.expired:
            raise self._too_late()

    def _on_notify(self, notification: Notification) -> bool:
        if notification.stage == "query-ext-files":
            self._frozen_at = self.stopwatch.frozen_s = time.monotonic()
            self._when_frozen()
        elif notification.stage == "post-dump":
            self._when_complete()
        return not self._watchdog.expired

    def _when_frozen(self) -> None:
        self.progress("frozen", 0)
        if self.tracked:
            self.tracked.frozen()
        self._members = self.task.members()
        self._description = {
            "task": describe_task(self.task),
            "host": describe_host(self.criu),
        }
        if self.stand_in:
            pids = [member.pid for member in self._members]
            self._written = written_files(self.task.procfs, pids)

    def _when_complete(self) -> None:
        """The images are complete and the tasks frozen: take the streams' state, and commit if this is the end."""
        # CRIU has closed its side by now; nothing is left but to read our own last lines.
        self._server.finish(timeout_s=_CRIU_END_S)
        if self.tracked:
            self.tracked.complete(timeout_s=self.deadline.left_s)
        write_empty_images(self.images, self._server.empty)
        self.stopwatch.received_s = time.monotonic()
        self.stopwatch.receiving_s = self._server.receiving_s
        self.progress("dumped", self._server.page_bytes)
        session = self.task.session
        if session:
            drain_s = min(_DRAIN_MAX_S, self.deadline.seconds * _DRAIN_SHARE)
            backlog, streams = session.drain(drain_s)
            self._description["streams"] = write_streams(self.writer, backlog, streams)
        self._kept_files = keep_files(
            self.writer,
            [member.pid for member in self._members],
            self.files,
            named=self.capture,
            before=self._files_before,
        )
        if not self.leave_running:
            self._commit()
            if session:
                assert self._snapshot is not None
                session.saved(self._snapshot.id, end=False)
            self._agreed = True

    def _commit(self) -> None:
        if self._watchdog.expired:
            raise self._too_late()
        self.writer.put_directory(self.images, exclude=_is_no_image, wait=False)
        now = time.monotonic()
        frozen_at = self._frozen_at if self._frozen_at is not None else now
        self._snapshot = self.writer.commit(
            **self._description,
            extra=self._extra(),
            timings={
                "before_freeze_s": frozen_at - self._started,
                "frozen_s": now - frozen_at,
                "memory_s": self._server.receiving_s,
                # The last moments, in which the manifest itself is put, cannot be in it.
                "dump_s": now - self.stopwatch.began_s,
            },
        )
        self.stopwatch.durable_s = time.monotonic()
        self.progress("committed", self._server.page_bytes)

    def _extra(self) -> dict[str, Any]:
        extra: dict[str, Any] = {"shell_job": self._is_shell_job, "tcp": self.tcp}
        if self.stand_in:
            # Those whose contents are kept are compared with them.
            listed = self._kept_files.get("files", ())
            kept = {one["path"] for one in listed if one["stream"] or one["parts"]}
            extra["written"] = [attrs.asdict(one) for one in self._written if one.path not in kept]
        if self.promise:
            extra["forecast"] = promise_json(self.promise)
        if self.tracked:
            extra["warm"] = self.tracked.figures()
        if self._kept_files.get("files"):
            extra["files"] = self._kept_files
        if self.full_because:
            extra["full_because"] = self.full_because
        return extra

    def _too_late(self) -> DeadlineExceeded:
        if self.deadline.called_off:
            return DeadlineExceeded(
                f"the dump of pid {self.task.pid} was called off; the task runs on"
            )
        return DeadlineExceeded(
            f"the dump of pid {self.task.pid} was not done after {self.deadline.seconds:g} s; the task runs on",
            hint="give it a longer window, or a faster store",
        )

    def _diagnose(self, error: CriuError) -> SnaplibError:
        """Find the reason behind CRIU's failure: the store's, the deadline's, or what its log says."""
        if self._watchdog.expired:
            return self._too_late()
        failure = self._server.failure
        if isinstance(failure, SnaplibError):
            return failure
        log = log_tail(self.images / _LOG, lines=2000)
        reasons = failure_reasons(log)
        if not reasons and failure is not None:
            reasons = (str(failure),)
        text = reasons[0] if reasons else str(error)
        return DumpFailed(
            f"CRIU could not dump pid {self.task.pid}: {text}; the task runs on",
            reasons=reasons,
            log="\n".join(log.splitlines()[-40:]),
            hint=remedy_for(reasons)
            or f"see what stands in the way with `snaplib preflight {self.task.pid}`",
        )


def _is_no_image(path: PurePosixPath) -> bool:
    if path.parts[0] in PARENT_NAMES:
        return True
    return path.name == _LOG or path.name.startswith("stats-")
