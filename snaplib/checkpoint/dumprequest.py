"""What CRIU is asked for when a task is dumped, and which of the files it writes are its images."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from snaplib.checkpoint.order import DumpOrder
from snaplib.checkpoint.tracked import TrackedDump
from snaplib.criu import PARENT_NAMES
from snaplib.criu.request import new_request

__all__ = ["DUMP_LOG", "GHOST_LIMIT_BYTES", "dump_request", "is_no_image"]

#: Deleted files up to this size are kept in the snapshot.
GHOST_LIMIT_BYTES = 1 << 30
#: CRIU's log, in the folder of images.
DUMP_LOG = "dump.log"


def dump_request(
    messages: Any,
    order: DumpOrder,
    tracked: TrackedDump | None,
    *,
    images: Path,
    page_fd: int,
    shell_job: bool,
) -> Any:
    """Return the request for a dump.

    Args:
        messages: The classes of CRIU's messages.
        order: What is wanted.
        tracked: What was copied ahead.
        images: Where CRIU puts its images.
        page_fd: Where it sends pages.
        shell_job: Whether the task is in a session whose leader is not part of it.
    """
    session = order.task.session
    request = new_request(messages, messages.DUMP, images, DUMP_LOG)
    opts = request.opts
    opts.pid = order.task.ns_pid if session else order.task.pid
    opts.leave_running = order.leave_running
    opts.ps.fd = page_fd
    opts.ext_unix_sk = True
    opts.file_locks = True
    opts.link_remap = True
    opts.ghost_limit = GHOST_LIMIT_BYTES
    opts.network_lock = messages.NFTABLES
    opts.shell_job = shell_job
    # What becomes of them is decided where they are restored.
    opts.tcp_established = order.tcp != "close"
    opts.tcp_close = order.tcp == "close"
    # Connections that a server has not accepted yet, which would fail the dump of a busy one.
    opts.tcp_skip_in_flight = order.tcp == "auto"
    if session:
        opts.external.extend(session.streams().external())
    if tracked:
        tracked.ask(opts, images)
    return request


def is_no_image(path: PurePosixPath) -> bool:
    """Tell of a file in the folder of images that it is none and does not go with the snapshot."""
    if path.parts[0] in PARENT_NAMES:
        return True
    return path.name == DUMP_LOG or path.name.startswith("stats-")
