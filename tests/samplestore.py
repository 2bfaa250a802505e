"""Makes the small stores in tests/data/stores, which every later snaplib must read.

``python -m tests.samplestore FOLDER [KEY]``, once for each new format; KEY is 64 hexadecimal digits and encrypts it.
"""

from __future__ import annotations

import hashlib
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from snaplib.store import PAGE_BYTES, PageLogOptions, Space, Store

TASK, SHARED = Space(1, 7), Space(2, 99)
OPTIONS = PageLogOptions(frame_bytes=2 * PAGE_BYTES, workers=1)


def noise(number: int) -> bytes:
    """Return a page that does not compress."""
    digests = (hashlib.sha256(f"{number} {at}".encode()).digest() for at in range(PAGE_BYTES // 32))
    return b"".join(digests)


def text(number: int) -> bytes:
    """Return a page that does."""
    return (b"page %04d " % number * PAGE_BYTES)[:PAGE_BYTES]


def feed(log: Any, data: bytes) -> None:
    """Give a page log the bytes of its last run."""
    view = memoryview(data)
    while view:
        room = log.reserve(len(view))
        room[:] = view[: len(room)]
        log.filled(len(room))
        view = view[len(room) :]


#: What is in the two snapshots: of the task pages as they are, compressed ones and zeros; the second changes one;
#: pages of shared memory; a folder; a file that has grown.
FIRST = [noise(1), noise(2), text(3), text(4), bytes(PAGE_BYTES), bytes(PAGE_BYTES)]
SECOND = [*FIRST[:3], text(5), *FIRST[4:]]
MAPPED = [text(6)]
FILE, MORE = b"the beginning", b" and what came later"


def put(writer: Any, content: list[bytes], known: list[bytes]) -> None:
    """Give a snapshot its pages."""
    for number, page in enumerate(content):
        at = 0x400000 + number * PAGE_BYTES
        if number < len(known) and known[number] == page:
            writer.pages.hole(TASK, at, 1, 4)
        else:
            writer.pages.run(TASK, at, 1, 4)
            feed(writer.pages, page)
    writer.pages.run(SHARED, 0, 1, 4)
    feed(writer.pages, MAPPED[0])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "core-1.img").write_bytes(b"core")
        writer.put_directory(Path(folder))


def make(folder: str, key: str | None) -> None:
    """Make a store with two snapshots, the second incremental to the first."""
    store = Store.open(folder, encryption_key=bytes.fromhex(key) if key else None)
    writer = store.begin("a/key", OPTIONS)
    put(writer, FIRST, [])
    writer.put_stream("file-1", io.BytesIO(FILE))
    first = writer.commit(task={"command": ["true"]}, extra={"parts": ["file-1"]})
    with store.begin("a/key", OPTIONS, parent=writer.as_parent()) as second:
        put(second, SECOND, FIRST)
        parts = ["file-1"]
        if hasattr(second, "claim_objects"):
            (lent,) = second.claim_objects(first, lambda name: name == "file-1")
            second.borrow(lent.reference)
            second.put_stream("file-1", io.BytesIO(MORE))
            parts.insert(0, lent.reference)
        else:
            second.put_stream("file-1", io.BytesIO(FILE + MORE))
        second.commit(task={"command": ["true"]}, extra={"parts": parts})
    print(*store.ids())


if __name__ == "__main__":
    make(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
