"""One restore: a snapshot comes to life in a PID namespace of its own, with the PIDs it had."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from snaplib.checkpoint.deadline import Deadline
from snaplib.checkpoint.images import pagemap_name
from snaplib.checkpoint.streams import read_streams
from snaplib.checkpoint.watchdog import Watchdog
from snaplib.criu import Criu, CriuError, Swrk, failure_reasons, find_criu, log_tail, remedy_for
from snaplib.criu.pagemap import pagemap_image
from snaplib.errors import RestoreFailed, RootRequired, SnaplibError
from snaplib.runtime import scratch_dir
from snaplib.session import Session
from snaplib.store import Snapshot, SnapshotReader, Store
from snaplib.task import Task

__all__ = ["restore"]

_LOG = "restore.log"
_CRIU_END_S = 30.0

Progress = Callable[[str, float], None]
Stream = Any


def restore(
    store: Store,
    snapshot_id: str,
    *,
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
    name: str | None = None,
    interactive: bool = False,
    deadline_s: float = 600.0,
    progress: Progress | None = None,
) -> Task:
    """Restore a task from a snapshot.

    Args:
        store: Where the snapshot is.
        snapshot_id: Which one.
        stdin: What the task's standard input is from now on; ours by default.
        stdout: Likewise its standard output.
        stderr: Likewise its standard error.
        name: The name of the session the task gets; made up by default.
        interactive: The caller will enter ``session.raw_terminal()``; until then the terminal, if
            there is one, stands still.
        deadline_s: Seconds after which the restore is given up.
        progress: Called with a stage and the bytes of pages so far.

    Returns:
        The task, running.

    Raises:
        RestoreFailed: It could not be restored; the snapshot is as it was, and nothing is left running.
        SnapshotDamaged: The snapshot's bytes are not those that were written.
    """
    if os.geteuid() != 0:
        raise RootRequired("restoring a task needs root")
    criu = find_criu()
    snapshot = store.get(snapshot_id)
    _check_host(snapshot)
    report = progress or (lambda _stage, _bytes: None)
    with scratch_dir("restore") as images:
        _check_room(snapshot, images)
        report("reading", 0)
        with store.read(snapshot.id) as reader:
            _write_images(reader, images)
            report("restoring", snapshot.raw_bytes)
            session = _new_session(reader, name, (stdin, stdout, stderr), interactive=interactive)
        try:
            _run_criu(criu, session, snapshot, images, deadline_s)
            session.adopt_root(snapshot.task["root_ns_pid"])
        except BaseException:
            session.discard()
            raise
    task = Task.of_session(session)
    _restore_affinity(task, snapshot)
    report("restored", snapshot.raw_bytes)
    return task


def _check_host(snapshot: Snapshot) -> None:
    here, there = platform.machine(), snapshot.host["arch"]
    if here != there:
        raise RestoreFailed(
            f"snapshot {snapshot.id} is of a {there} machine and this is {here}",
            hint="restore it on a machine of the same architecture",
        )


def _check_room(snapshot: Snapshot, folder: Path) -> None:
    """Find out before anything is written whether the task's memory has room as CRIU's images."""
    found = os.statvfs(folder)
    free_bytes = found.f_bavail * found.f_frsize
    if free_bytes < snapshot.raw_bytes:
        raise RestoreFailed(
            f"{folder.parent} has room for {free_bytes >> 20} MiB, and the memory of snapshot "
            f"{snapshot.id} takes {snapshot.raw_bytes >> 20} MiB",
            hint="free space there, or name another folder in $SNAPLIB_SCRATCH_DIR",
        )


def _write_images(reader: SnapshotReader, images: Path) -> None:
    """Write the image files CRIU reads: its own small ones as they were, memory from the page log."""
    reader.extract_directory(images)
    pages = reader.pages
    for number, space in enumerate(pages.spaces(), start=1):
        image = pagemap_image(number, pages.entries(space))
        (images / pagemap_name(space)).write_bytes(image)
        descriptor = os.open(
            images / f"pages-{number}.img", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600
        )
        try:
            pages.copy_to(space, descriptor)
        finally:
            os.close(descriptor)


def _new_session(
    reader: SnapshotReader,
    name: str | None,
    outer: tuple[Stream, Stream, Stream],
    *,
    interactive: bool,
) -> Session:
    """Make the namespace the task will live in, with the ends of its standard streams."""
    snapshot = reader.snapshot
    record, backlog, captured = read_streams(reader)
    reserve = {
        number
        for member in snapshot.task["members"]
        for number in (member["pid"], member["group"], member["session"], *member["threads"])
    }
    return Session.start_for_restore(
        record,
        command=snapshot.task["command"],
        cwd=snapshot.task["cwd"],
        stdin=outer[0],
        stdout=outer[1],
        stderr=outer[2],
        backlog=backlog,
        captured=captured,
        name=name,
        key=snapshot.key,
        reserve=reserve,
        interactive=interactive,
    )


def _run_criu(
    criu: Criu, session: Session, snapshot: Snapshot, images: Path, deadline_s: float
) -> None:
    inherited = session.inherit_fds()
    try:
        swrk = Swrk(criu, enter=session.enter_prefix(), pass_fds=[fd for fd, _key in inherited])
    finally:
        for descriptor, _key in inherited:
            os.close(descriptor)
    messages = swrk.messages
    request = messages.criu_req(type=messages.RESTORE)
    opts = request.opts
    opts.images_dir_fd = -1
    opts.images_dir = str(images)
    opts.log_file = _LOG
    opts.log_level = 2
    opts.notify_scripts = True
    opts.ext_unix_sk = True
    opts.file_locks = True
    opts.link_remap = True
    opts.manage_cgroups_mode = messages.IGNORE
    opts.network_lock = messages.NFTABLES
    opts.tcp_established = True
    opts.shell_job = bool(snapshot.extra.get("shell_job", False))
    for descriptor, key in inherited:
        opts.inherit_fd.add(key=key, fd=descriptor)
    watchdog = Watchdog(Deadline(deadline_s), [swrk.hang_up])
    with contextlib.ExitStack() as stack:
        stack.callback(swrk.finish, _CRIU_END_S)
        stack.enter_context(watchdog)
        try:
            swrk.request(request, on_notify=lambda _stage: not watchdog.expired)
        except CriuError as error:
            raise _diagnose(error, snapshot, images, watchdog, deadline_s) from error


def _diagnose(
    error: CriuError, snapshot: Snapshot, images: Path, watchdog: Watchdog, deadline_s: float
) -> SnaplibError:
    if watchdog.expired:
        return RestoreFailed(
            f"the restore of snapshot {snapshot.id} was not done after {deadline_s:g} s",
            hint="the snapshot is as it was; try again",
        )
    log = log_tail(images / _LOG, lines=2000)
    reasons = failure_reasons(log)
    text = reasons[0] if reasons else str(error)
    return RestoreFailed(
        f"CRIU could not restore snapshot {snapshot.id}: {text}",
        reasons=reasons,
        log="\n".join(log.splitlines()[-40:]),
        hint=remedy_for(reasons) or "the snapshot is as it was; see CRIU's log with -v",
    )


def _restore_affinity(task: Task, snapshot: Snapshot) -> None:
    """Give back what CRIU does not restore: the CPUs each thread was confined to, as far as they exist here."""
    wanted = snapshot.task.get("affinity", {})
    if not wanted:
        return
    here = os.sched_getaffinity(0)
    for host_tid, ns_tid in task.thread_ids().items():
        cpus = set(wanted.get(str(ns_tid), ())) & here
        if cpus:
            with contextlib.suppress(ProcessLookupError):  # it has ended since
                os.sched_setaffinity(host_tid, cpus)
