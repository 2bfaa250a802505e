"""How well a task's memory compresses, from a few of its pages."""

from __future__ import annotations

import contextlib
import random
import time
from typing import TYPE_CHECKING

import numpy as np

from snaplib.forecasting import CompressionSample
from snaplib.kernel.pagemap import Category, Pagemap
from snaplib.kernel.syscalls import process_vm_read
from snaplib.store.codec import compress, is_zero

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snaplib.kernel import Mapping
    from snaplib.task import Task

__all__ = ["sample_compression"]

#: What is compressed at once: long enough to find what repeats.
_PIECE_BYTES = 256 << 10
_PIECES = 48
_LEVEL = -1
#: Mappings of private memory that are looked at: the largest.
_MAPPINGS = 400


def sample_compression(task: Task, pieces: int = _PIECES) -> CompressionSample | None:
    """Compress some of a task's pages while it runs; takes 20 to 60 ms.

    Pages that are not there are neither read nor made.

    Args:
        task: The task.
        pieces: How many pieces of 256 KiB to look at.

    Returns:
        What came of it; None where no page could be read.
    """
    # The same task gives the same places: what differs is the task.
    choose = random.Random(task.pid)
    raw = stored = tried = 0
    busy_s = 0.0
    for piece in _pieces(task, choose, pieces):
        if is_zero(piece):
            raw += len(piece)
            continue
        # By its CPU: the task is still at work beside it, which it is not when it is dumped.
        begun = time.thread_time()
        after = compress(piece, _LEVEL)
        busy_s += time.thread_time() - begun
        tried += len(piece)
        raw += len(piece)
        stored += len(piece if after is None else after)
    if not raw:
        return None
    speed = tried / busy_s if busy_s > 0 else None
    return CompressionSample(stored / raw, raw, speed, _LEVEL)


def _pieces(task: Task, choose: random.Random, count: int) -> Iterator[bytes]:
    """Yield the present bytes of pieces of private memory, each chance in proportion to memory."""
    found: list[tuple[int, Mapping]] = []
    for member in task.members():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            found += [
                (member.pid, one)
                for one in task.procfs.smaps(member.pid)
                if (one.anonymous_bytes or 0) and one.readable
            ]
    found.sort(key=lambda one: -(one[1].anonymous_bytes or 0))
    found = found[:_MAPPINGS]
    if not found:
        return
    weights = [mapping.anonymous_bytes or 0 for _, mapping in found]
    for pid, mapping in choose.choices(found, weights, k=count):
        with contextlib.suppress(OSError):
            yield from _piece(pid, mapping, choose, f"{task.procfs.root}/{pid}/pagemap")


def _piece(pid: int, mapping: Mapping, choose: random.Random, pagemap: str) -> Iterator[bytes]:
    last = max(mapping.size_bytes - _PIECE_BYTES, 0)
    start = mapping.start + choose.randrange(0, last + 1, 4096)
    end = min(start + _PIECE_BYTES, mapping.end)
    with Pagemap(pagemap) as pages:
        regions = pages.scan(start, end, having=Category.PRESENT, lacking=Category.PFNZERO)
    parts = [
        process_vm_read(pid, int(first), int(after) - int(first))
        for first, after in np.asarray(regions[:, :2]).tolist()
    ]
    if parts:
        yield b"".join(parts)
