"""An incremental dump of which nothing is kept but which pages came."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from snaplib.checkpoint.deadline import Deadline
from snaplib.checkpoint.pageserver import PageServer
from snaplib.checkpoint.watchdog import Watchdog
from snaplib.criu import (
    Criu,
    CriuError,
    Notification,
    Swrk,
    failure_reasons,
    log_tail,
    write_bare_parent,
)
from snaplib.criu.pagemap import PAGE_BYTES
from snaplib.criu.request import new_request
from snaplib.errors import ShimUnusable
from snaplib.scratch import scratch_dir
from snaplib.store import Space

__all__ = ["DEADLINE_S", "Received", "page_addresses", "trial_dump"]

#: For each step of it.
DEADLINE_S = 120.0
_LOG = "dump.log"

#: The kind of `Space` that is a process's memory.
_PROCESS = 1


@attrs.define
class Received:
    """A page sink that keeps no bytes: which pages came, and which were left out."""

    came: set[int] = attrs.field(factory=set)
    left_out: set[int] = attrs.field(factory=set)
    _room: bytearray = attrs.field(factory=lambda: bytearray(1 << 20))

    def run(self, space: Space, vaddr: int, pages: int, _flags: int) -> None:
        """Note pages that come."""
        if space.kind == _PROCESS:
            self.came.update(page_addresses(vaddr, pages))

    def hole(self, space: Space, vaddr: int, pages: int, _flags: int) -> None:
        """Note pages that CRIU leaves out."""
        if space.kind == _PROCESS:
            self.left_out.update(page_addresses(vaddr, pages))

    def reserve(self, limit: int) -> memoryview:
        """Give room for at most ``limit`` bytes."""
        return memoryview(self._room)[:limit]

    def filled(self, _count: int) -> None:
        """Do nothing."""


def page_addresses(vaddr: int, pages: int) -> range:
    """Return where each page of a run begins."""
    return range(vaddr, vaddr + pages * PAGE_BYTES, PAGE_BYTES)


def trial_dump(
    criu: Criu, environment: Mapping[str, str], pid: int, before: dict[int, bytes]
) -> tuple[Received, list[int]]:
    """Dump a process; return what came, and which pages were left out though they had changed."""
    received = Received()
    changed: list[int] = []

    def compare(notification: Notification) -> None:
        if notification.stage == "post-dump":
            server.finish(DEADLINE_S)
            with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
                for page in sorted(received.left_out):
                    content = os.pread(memory.fileno(), PAGE_BYTES, page)
                    if before.get(page) != content:
                        changed.append(page)

    with scratch_dir("proof") as images, contextlib.ExitStack() as stack:
        server = PageServer(received, has_parent=True)
        stack.callback(server.close)
        page_fd = server.criu_end.fileno()
        swrk = Swrk(criu, pass_fds=[page_fd], environment=environment)
        stack.callback(swrk.finish, DEADLINE_S)
        server.criu_end.close()
        server.start()
        with Watchdog(Deadline(DEADLINE_S), [server.hang_up, swrk.hang_up]):
            try:
                swrk.request(_request(swrk.messages, images, pid, page_fd), on_notify=compare)
            except CriuError as error:
                reasons = failure_reasons(log_tail(images / _LOG, lines=2000))
                raise ShimUnusable(
                    f"a trial dump failed: {reasons[0] if reasons else error}"
                ) from error
    return received, changed


def _request(messages: Any, images: Path, pid: int, page_fd: int) -> Any:
    request = new_request(messages, messages.DUMP, images, _LOG)
    opts = request.opts
    opts.pid = pid
    opts.leave_running = True
    opts.ps.fd = page_fd
    opts.track_mem = True
    opts.parent_img = write_bare_parent(images)
    return request
