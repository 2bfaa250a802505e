"""One run of CRIU that restores a task."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from snaplib.checkpoint.connections import Fate
from snaplib.checkpoint.deadline import Deadline
from snaplib.checkpoint.diagnosis import RESTORE_LOG, restore_failure
from snaplib.checkpoint.imagefolder import ImageFolder
from snaplib.checkpoint.settling import are_closed, settle_connections
from snaplib.checkpoint.watchdog import Watchdog
from snaplib.criu import Criu, CriuError, Notification, Swrk
from snaplib.criu.droppable import without_droppable_memory
from snaplib.criu.request import new_request
from snaplib.criu.timers import with_running_timers
from snaplib.errors import RestoreFailed
from snaplib.kernel.memory import has_droppable_memory
from snaplib.session import Session
from snaplib.store import Snapshot

__all__ = ["run_restore", "too_late"]

_CRIU_END_S = 30.0


def run_restore(
    criu: Criu,
    session: Session,
    snapshot: Snapshot,
    images: ImageFolder,
    deadline: Deadline,
    *,
    tcp: str,
    tell: Callable[[Fate], None],
    lazy: bool = False,
    fill_up: Callable[[], None] | None = None,
) -> None:
    """Let CRIU restore a task.

    Args:
        criu: The CRIU that does it.
        session: The namespace it is restored in.
        snapshot: What is restored.
        images: Its images.
        deadline: When it is given up.
        tcp: What becomes of connections, one of `TCP_MODES`.
        tell: Told of each connection that does not live on as it was.
        lazy: Whether memory comes while the task runs, from who listens for CRIU in the folder of images.
        fill_up: Sees to the memory that is in no image; called when all mappings are where they belong, and nothing
            runs.

    Raises:
        RestoreFailed: It could not be restored.
    """
    fates = settle_connections(criu, snapshot, images.path, tcp)
    if not has_droppable_memory():
        without_droppable_memory(criu, images.path)
    with_running_timers(criu, images.path)
    inherited = session.inherit_fds()
    try:
        passed = [fd for fd, _key in inherited]
        if images.in_memory:
            passed.append(images.descriptor)
        swrk = Swrk(criu, enter=session.enter_prefix(), pass_fds=passed)
    finally:
        for descriptor, _key in inherited:
            os.close(descriptor)
    messages = swrk.messages
    request = new_request(messages, messages.RESTORE, images.path, RESTORE_LOG)
    opts = request.opts
    # What has become the task's memory is freed in the images.
    opts.auto_dedup = images.in_memory
    opts.ext_unix_sk = True
    opts.file_locks = True
    opts.link_remap = True
    opts.network_lock = messages.NFTABLES
    # CRIU refuses images of closed connections unless it is told of them again.
    opts.tcp_close = are_closed(snapshot)
    opts.tcp_established = not opts.tcp_close
    opts.lazy_pages = lazy
    opts.shell_job = bool(snapshot.extra.get("shell_job", False))
    for descriptor, key in inherited:
        opts.inherit_fd.add(key=key, fd=descriptor)
    watchdog = Watchdog(deadline, [swrk.hang_up])
    is_complete = fill_up is None

    def on_notify(notification: Notification) -> bool:
        nonlocal is_complete
        if notification.stage == "post-restore" and fill_up is not None:
            fill_up()
            is_complete = True
        if notification.stage == "pre-resume":
            if not is_complete:
                raise RestoreFailed("CRIU did not say when the task's memory could come")
            # From here on nothing fails any more, and the task runs even if we are killed.
            session.expect_root(snapshot.task["root_ns_pid"])
        return not watchdog.expired

    with contextlib.ExitStack() as stack:
        stack.callback(swrk.finish, _CRIU_END_S)
        stack.enter_context(watchdog)
        try:
            swrk.request(request, on_notify=on_notify)
        except CriuError as error:
            if watchdog.expired:
                raise too_late(snapshot, deadline) from error
            raise restore_failure(error, criu, snapshot, images.path) from error
    for one in fates:
        tell(one)


def too_late(snapshot: Snapshot, deadline: Deadline) -> RestoreFailed:
    """Return what to raise when the deadline of a restore has passed."""
    return RestoreFailed(
        f"the restore of snapshot {snapshot.id} was not done after {deadline.seconds:g} s",
        hint="the snapshot is as it was; try again",
    )
