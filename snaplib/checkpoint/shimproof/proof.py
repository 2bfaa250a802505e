"""What CRIU leaves out, compared with what did not change."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Protocol

from snaplib.checkpoint.shimproof.child import DROPPED, WRITTEN, Child, copy_memory
from snaplib.checkpoint.shimproof.trialdump import (
    DEADLINE_S,
    Received,
    page_addresses,
    trial_dump,
)
from snaplib.criu import Criu, Shim
from snaplib.criu.pagemap import PAGE_BYTES
from snaplib.errors import ShimUnusable
from snaplib.task import Task
from snaplib.track import SoftDirty, Tracker, WriteProtect

__all__ = ["prove_shim", "prove_soft_dirty"]

#: CRIU itself may write to some pages of the child.
_SPURIOUS_PAGES = 3


def prove_shim(criu: Criu, shim: Shim) -> str:
    """Dump a small child incrementally, and compare what was left out with a copy made before.

    Args:
        criu: The binary.
        shim: The library to preload.

    Returns:
        What was found, in words.

    Raises:
        ShimUnusable: CRIU left out a page that had changed, or one that nobody watches, or sent them all.
        SnaplibError: It could not be tried.
    """
    return _prove(criu, WriteProtect, shim.environment())


def prove_soft_dirty(criu: Criu) -> str:
    """The same, of CRIU as it is and the kernel's soft-dirty bits.

    Args:
        criu: The binary.

    Returns:
        What was found, in words.

    Raises:
        ShimUnusable: As for `prove_shim`.
        SnaplibError: It could not be tried.
    """
    return _prove(criu, SoftDirty, {})


class _Track(Protocol):
    def __call__(self, task: Task, *, freeze_deadline_s: float) -> Tracker: ...


def _prove(criu: Criu, track: _Track, environment: Mapping[str, str]) -> str:
    with contextlib.ExitStack() as stack:
        child = stack.enter_context(Child())
        task = stack.enter_context(Task.attach(child.pid))
        # The child is ours: on a slow or busy machine it may stand still for as long as it takes to arm all of it.
        tracker = stack.enter_context(track(task, freeze_deadline_s=DEADLINE_S))
        tracker.arm()
        before = copy_memory(task)
        new = child.change()
        received, changed = trial_dump(criu, environment, child.pid, before)
        scan = tracker.scan(rearm=False)
        dirty = {
            page
            for found in scan.processes
            for run in found.dirty
            for page in page_addresses(int(run["start"]), int(run["pages"]))
        }
    _judge(received, changed, dirty, armed=child.armed, copied=child.copied, new=new)
    return f"{len(received.left_out)} pages left out, {len(received.came)} sent"


def _judge(
    received: Received,
    changed: list[int],
    dirty: set[int],
    *,
    armed: int,
    copied: int,
    new: int,
) -> None:
    """Raise what speaks against it.

    Args:
        received: What the dump sent, and left out.
        changed: What it left out though it had changed.
        dirty: What has changed by the word of our own tracker.
        armed: Address of memory that was written in part.
        copied: Address of memory of a file that was dropped in part.
        new: Address of memory that nobody watched.
    """
    if changed:
        raise ShimUnusable(
            f"of {len(received.left_out)} pages that a trial dump left out {len(changed)} had changed"
        )
    written = {armed + number * PAGE_BYTES for number in WRITTEN}
    dropped = {copied + number * PAGE_BYTES for number in DROPPED}
    unknown = set(page_addresses(new, 16))
    if lost := (written | unknown) - received.came:
        raise ShimUnusable(f"{len(lost)} pages that had changed were missing from a trial dump")
    if dropped & received.left_out:
        raise ShimUnusable("pages of a file that had been dropped were left out of a trial dump")
    needless = received.came.intersection(page_addresses(armed, 64)) - written
    if len(needless) > _SPURIOUS_PAGES:
        raise ShimUnusable(
            f"{len(needless)} pages that had not changed were sent in a trial dump; the tracker took"
            f" {len(needless & dirty)} of them for changed"
        )
