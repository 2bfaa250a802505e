"""Dumps: what is asked for is checked, and then taken in one attempt or two.

Where pages were copied ahead, what has changed since is taken; if that turns out not to be possible and there is time
left, everything is.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import attrs

from snaplib.arguments import functions, has, one_of, patterns, shown, snapshot_store, task_of, text
from snaplib.checkpoint.attempt import Attempt
from snaplib.checkpoint.connections import TCP_MODES
from snaplib.checkpoint.deadline import Deadline
from snaplib.checkpoint.filekeeper import FILE_MODES
from snaplib.checkpoint.lazy import wait_for_memory
from snaplib.checkpoint.noting import Stopwatch, measure_work, note, promise_from, promise_of
from snaplib.checkpoint.opening import Opening
from snaplib.checkpoint.order import DumpOrder, Progress
from snaplib.checkpoint.preflight import preflight
from snaplib.checkpoint.tracked import TrackedDump
from snaplib.criu import find_criu
from snaplib.errors import (
    CannotDump,
    CriuFailure,
    DeadlineExceeded,
    RootRequired,
    StoreUnreachable,
    UsageError,
    WrongType,
)
from snaplib.forecasting import Forecast, StrategyForecast
from snaplib.kernel.interfaces import is_up
from snaplib.planning import Plan
from snaplib.scratch import scratch_dir
from snaplib.store import PageLogOptions, Snapshot, Store
from snaplib.task import Task
from snaplib.track import CannotTrack
from snaplib.warm import CopyFailed, WarmCopy

if TYPE_CHECKING:
    from snaplib.observe import Watch

__all__ = ["dump"]

#: What makes a dump with copies fail and says nothing against one without.  Not when time is up, or the store failed.
_NOT_TRACKED = (CopyFailed, CannotTrack, CriuFailure)


#: The roots that are being dumped by this process, each by its pid and when it was started.
_under_way: set[tuple[int, int]] = set()
_LOCK = threading.Lock()


def dump(
    task: Task,
    store: Store,
    *,
    key: str | None = None,
    leave_running: bool = False,
    deadline_s: float | Deadline = 120.0,
    tcp: str = "auto",
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
        tcp: What becomes of connected TCP sockets: ``established`` keeps them, ``close`` closes them; with ``auto``
            the restore decides for each, and those that a server has not accepted yet are dropped.
        files: Whether the contents of the files that the task writes go with the snapshot (``capture``) or only what
            they are (``reference``); by default they do where the store is not on this machine.
        capture: Patterns of files whose contents go with the snapshot in any case, whether the task has them open or
            not; ``**`` stands for any folders.
        skip_preflight: Whether to try even what preflight says must fail.
        stand_in: Whether the snapshot is to take the place of a task that runs on should that be lost: a restore then
            cuts off what the task has appended to its files since, and fails if they have changed otherwise.  A task
            that is to end may run on too, if something happens between the commit and its end; see ``outlived`` of
            `restore`.
        warm: What was copied ahead, of this task and into this store: only what has changed since is taken now.  If
            that turns out not to be possible, all of it is taken, in the same time.  When the task runs on, the next
            dump with the same copies is incremental to this one.
        progress: Called with a stage and the bytes of pages so far.  If it raises, the dump is given up.
        plan: What is expected of this dump; it is kept with the snapshot, beside what came of it, and a plan says
            how hard to compress.
        watch: Watches the task: what is expected is forecast from its newest profile where no plan says it.

    Returns:
        The snapshot, durable in the store.

    Raises:
        CannotDump: The task holds something that cannot be dumped, or is being dumped already; it was not touched.
        TaskEnded: It has ended, or ended meanwhile.
        DumpFailed: CRIU failed; the task runs on, and says why where CRIU's log does.
        DeadlineExceeded: It took too long; the task runs on.
        StoreError: The store failed; the task runs on.
        UsageError: An argument is not what it can be; nothing was touched.
    """
    task_of(task)
    snapshot_store(store)
    one_of("tcp", tcp, TCP_MODES)
    if files is not None:
        one_of("files", files, FILE_MODES)
    if key is not None:
        text("key", key)
    functions(progress=progress)
    _check_what_is_known(warm, plan, watch)
    named = patterns("capture", capture)
    deadline = deadline_s if isinstance(deadline_s, Deadline) else Deadline(deadline_s)
    if deadline.left_s <= 0:
        raise UsageError(f"a deadline of {deadline.seconds:g} s leaves no time for a dump")
    if os.geteuid() != 0:
        raise RootRequired("dumping a task needs root")
    stopwatch, wall_s, before = Stopwatch(), time.time(), store.backend.throughput()
    criu = find_criu()
    if not is_up("lo"):
        # CRIU would wait for ever (CRIU: criu/kerndat.c).
        raise CannotDump(
            "the loopback of this network namespace is not up", hint="ip link set lo up"
        )
    if not skip_preflight:
        _refuse_fatal(task, tcp, leave_running=leave_running)
    if task.session:
        wait_for_memory(task.session.folder, deadline.left_s)
    promise = promise_of(plan, deadline.seconds) or promise_from(watch, store, deadline.seconds)
    work = measure_work(task)
    order = DumpOrder(
        task=task,
        store=store,
        criu=criu,
        leave_running=leave_running,
        deadline=deadline,
        tcp=tcp,
        stand_in=stand_in,
        files=files or ("reference" if store.backend.local else "capture"),
        # Not resolved: a pattern is no path yet.
        capture=tuple(os.path.abspath(pattern) for pattern in named),  # noqa: PTH100
        progress=progress or (lambda _stage, _bytes: None),
        promise=promise,
        stopwatch=stopwatch,
    )
    # What the store does not answer in time is given up, so that the task does not stand still for it.
    store.backend.limit_by(lambda: deadline.left_s)
    try:
        with _only_one(task):
            taken = _taken(warm, key or task.key, _page_log_options(plan), order)
    finally:
        store.backend.limit_by(None)
    snapshot = taken.snapshot
    if taken.tracked is None and taken.writer.pages.found_pages:
        # How long others will take that nothing is known of cannot be learned from it.
        return snapshot
    note(
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


@contextlib.contextmanager
def _only_one(task: Task) -> Iterator[None]:
    """Keep other threads from dumping the same task meanwhile: two CRIUs would be in each other's way."""
    name = (task.pid, task.start_time)
    with _LOCK:
        if name in _under_way:
            raise CannotDump(f"pid {task.pid} is being dumped already", hint="wait for that dump")
        _under_way.add(name)
    try:
        yield
    finally:
        with _LOCK:
            _under_way.discard(name)


def _check_what_is_known(warm: object, plan: object, watch: object) -> None:
    """Refuse what is nothing that a dump can build upon."""
    has("warm", warm, "ready", "WarmCopy")
    has("watch", watch, "profile", "Watch")
    if plan is not None and not isinstance(plan, Plan | Forecast | StrategyForecast):
        raise WrongType(
            f"plan is {shown(plan)}, and must be a snaplib.Plan, or the snaplib.Forecast that it is of"
        )


def _taken(
    warm: WarmCopy | None, key: str, options: PageLogOptions | None, order: DumpOrder
) -> Attempt:
    """Take what has changed since the copies were made, or everything."""
    reason = ""
    if warm is not None and warm.ready:
        try:
            return _tracked(warm, order)
        except DeadlineExceeded:
            raise
        except _NOT_TRACKED as error:
            # The task runs on, and there is time: take everything.
            reason = str(error)
            order.progress("full", 0)
    begin = functools.partial(order.store.begin, key, options, find=True)
    with Opening(begin) as opening, scratch_dir("dump") as images:
        taken = Attempt(order, opening.coming, images, full_because=reason)
        taken.take()
    return taken


def _tracked(warm: WarmCopy, order: DumpOrder) -> Attempt:
    """Take what has changed since the copies were made."""
    try:
        tracked = TrackedDump.prepare(warm, order.criu)
        with scratch_dir("dump") as images:
            taken = Attempt(order, tracked.coming, images, tracked)
            taken.take()
    except (DeadlineExceeded, StoreUnreachable):
        warm.failed()
        raise
    except BaseException:
        warm.give_up()
        raise
    if order.leave_running:
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
