"""Makes the small stores in tests/data/stores, which every later snaplib must read.

``python -m tests.samplestore FOLDER [KEY] [--blocks]``, once for each new format; KEY is 64 hexadecimal digits and
encrypts it.  With ``--blocks`` the task was restored between the snapshots, and what had not changed found again.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import tempfile
from pathlib import Path
from typing import Any

from snaplib.store import PAGE_BYTES, PageLogOptions, RunSet, Space, Store

TASK, SHARED = Space(1, 7), Space(2, 99)
OPTIONS = PageLogOptions(frame_bytes=2 * PAGE_BYTES, workers=1)
#: Frames of two blocks.
BLOCK_OPTIONS = PageLogOptions(codec="zstd", frame_bytes=32 * PAGE_BYTES, workers=1)


def noise(number: int) -> bytes:
    """Return a page that does not compress."""
    digests = (hashlib.sha256(f"{number} {at}".encode()).digest() for at in range(PAGE_BYTES // 32))
    return b"".join(digests)


def text(number: int) -> bytes:
    """Return a page that does."""
    return (b"page %04d " % number * PAGE_BYTES)[:PAGE_BYTES]


def mixed(number: int) -> bytes:
    """Return a page of which a tenth does not."""
    return noise(number)[: PAGE_BYTES // 10] + text(number)[PAGE_BYTES // 10 :]


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
#: The same where pages come again: four blocks, of which the second snapshot changes one, and what else there is.
BLOCKS_FIRST = [*(mixed(100 + number) for number in range(64)), *FIRST]
BLOCKS_SECOND = [*BLOCKS_FIRST[:20], mixed(7), *BLOCKS_FIRST[21:64], *SECOND]
FILE, MORE = b"the beginning", b" and what came later"


def contents(sample: str) -> tuple[list[bytes], list[bytes]]:
    """Return the pages of the task in the two snapshots of a sample, given its name."""
    return (BLOCKS_FIRST, BLOCKS_SECOND) if "blocks" in sample else (FIRST, SECOND)


def copy(writer: Any, content: list[bytes]) -> None:
    """Copy the pages of the task ahead."""
    log = writer.pages
    first = log.page_number(TASK, 0x400000)

    def read(room: memoryview, some: Any) -> Any:
        begin = int(some.begins[0]) - first
        room[:] = b"".join(content[begin : begin + some.pages])
        return some

    copier = log.feed()
    copier.gather(RunSet.of([first], [first + len(content)]), read, lambda: False)
    log.take(copier)
    log.release(copier)


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


def make(folder: str, key: str | None, *, blocks: bool) -> None:
    """Make a store with two snapshots, the second incremental to the first."""
    store = Store.open(folder, encryption_key=bytes.fromhex(key) if key else None)
    options = BLOCK_OPTIONS if blocks else OPTIONS
    old, new = (BLOCKS_FIRST, BLOCKS_SECOND) if blocks else (FIRST, SECOND)
    writer = store.begin("a/key", options)
    if blocks:
        copy(writer, old)
    put(writer, old, old if blocks else [])
    writer.put_stream("file-1", io.BytesIO(FILE))
    first = writer.commit(task={"command": ["true"]}, extra={"parts": ["file-1"]})
    with (
        store.begin("a/key", options, find=True)
        if blocks
        else store.begin("a/key", options, parent=writer.as_parent())
    ) as second:
        if blocks:
            copy(second, new)
        put(second, new, new if blocks else old)
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
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("key", nargs="?")
    parser.add_argument("--blocks", action="store_true")
    arguments = parser.parse_args()
    make(arguments.folder, arguments.key, blocks=arguments.blocks)
