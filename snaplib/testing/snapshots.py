"""Small snapshots of no task, for tests of what lists, checks and moves snapshots."""

from __future__ import annotations

import io
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from snaplib.store import PAGE_BYTES, PageLogOptions, Snapshot, Space, Store

if TYPE_CHECKING:
    from snaplib.store import PageLogWriter

__all__ = ["NOISE", "SAMPLE_SHARED", "SAMPLE_TASK", "feed", "sample_snapshot"]

#: 40 pages that do not compress, the same in every run.
NOISE = random.Random(23).randbytes(40 * PAGE_BYTES)

#: The spaces of a sample: 120 pages; 3 pages.
SAMPLE_TASK = Space(1, 7)
SAMPLE_SHARED = Space(2, 99)


def feed(log: PageLogWriter, data: bytes, step_bytes: int = 100_000) -> None:
    """Give a page log the bytes of its last run, as the page server does.

    Args:
        log: The page log.
        data: The bytes.
        step_bytes: How many to give at a time at most.
    """
    view = memoryview(data)
    while view:
        room = log.reserve(min(step_bytes, len(view)))
        count = len(room)
        room[:] = view[:count]
        log.filled(count)
        view = view[count:]


def sample_snapshot(store: Store, key: str = "key") -> Snapshot:
    """Put a snapshot into a store that has all kinds of objects, and of frames: raw, zstd, zero.

    Args:
        store: The store.
        key: The snapshot's key.
    """
    data = bytes(range(256)) * 16 * 40 + bytes(40 * PAGE_BYTES) + NOISE
    options = PageLogOptions(frame_bytes=1 << 16, segment_bytes=1 << 17)
    with store.begin(key, options) as writer, tempfile.TemporaryDirectory() as folder:
        writer.pages.run(SAMPLE_TASK, 0x400000, len(data) // PAGE_BYTES, 4)
        feed(writer.pages, data)
        writer.pages.run(SAMPLE_SHARED, 0, 3, 4)
        feed(writer.pages, data[: 3 * PAGE_BYTES])
        for number in range(5):
            (Path(folder) / f"core-{number}.img").write_bytes(b"core" * 100 * number)
        writer.put_directory(Path(folder))
        writer.put_stream("streams-1", io.BytesIO(b"said" * 10))
        return writer.commit(
            task={"command": ["sleep", "1"], "cwd": "/", "root_ns_pid": 1, "members": []},
            host={"kernel": "6.1"},
            timings={"frozen_s": 0.25},
        )
