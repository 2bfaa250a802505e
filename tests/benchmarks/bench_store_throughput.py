"""Pages through the store against the same bytes written directly, and against what compressing them takes.

To a local folder and to an S3 server on loopback (moto: its own speed is the limit there), beside obstore alone writing
one object of the bytes that are stored, with the same parts and as many at once.  Ours is durable when it returns: on
the disk obstore is timed with the ``fsync`` that makes its file as safe, and without.  Compressed with zstd and thrown
away, beside nothing but zstd at the same level, in as many threads.

No two pages are the same, in all rounds together: each begins with a number that counts on.  So nothing is
found that is stored already.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import numpy as np
import obstore
from obstore.store import LocalStore, S3Store

from snaplib.store import PAGE_BYTES, PageLogOptions, Space, Store
from snaplib.store.codec import keep_buffers, zstd
from snaplib.store.remote.objects import PART_BYTES
from snaplib.testing.s3 import S3Server
from snaplib.testing.stores import MemoryBackend
from tests.benchmarks.harness import interleaved, machine, ratio

if TYPE_CHECKING:
    import numpy.typing as npt

    from snaplib.store.backend import Data, ObjectWriter

SUMMARY = "pages through the store against obstore alone, and against zstd alone"

_MIB = 1 << 20
#: What a page server receives at a time.
_STEP_BYTES = 1 << 20
_AT_ONCE = 4
_SPACE = Space(1, 1)
_OPTIONS = PageLogOptions()
#: The numbers that pages begin with count on from round to round.
_NUMBERS = itertools.count(1 << 40, 1 << 20)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--mib", type=int, default=1024, help="to the disk (default: 1024)")
    parser.add_argument("--s3-mib", type=int, default=256, help="to the S3 server (default: 256)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", default="/var/tmp", help="a folder on the disk to write to")


def run(args: argparse.Namespace) -> None:
    """Print a table: medians in MiB/s, and ratios pair by pair."""
    print(f"{machine()}; {args.rounds} interleaved rounds; MiB/s median [min-max]")
    print("| what | snaplib, durable | beside it | MiB/s | snaplib / that |")
    print("|---|---|---|---|---|")
    noise = random.Random(23).randbytes(64 * _MIB)
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        _local(Path(folder), noise, args.mib, args.rounds, "none")
        _local(Path(folder), _mixture(noise), args.mib, args.rounds, "zstd")
    _compressed(_mixture(noise), args.mib, args.rounds)
    with S3Server() as server, _environment(server.environment()):
        _bucket(server, noise, args.s3_mib, args.rounds)


def _mixture(noise: bytes) -> bytes:
    """Return as many bytes, half of them text, in runs of 16 pages: heaps lie between the two."""
    run = 16 * PAGE_BYTES
    text = b"chr1\t%09d\t60\t100M\t=\tACGTTGCAACGT\tIIIIIIIIIIII\n" * (2 * run // 40)
    parts = [
        noise[at : at + run] if at // run % 2 else text[at // run % 37 :][:run]
        for at in range(0, len(noise), run)
    ]
    return b"".join(parts)


class _Pages:
    """Pages that come one after another, the same content again and again but for the number at their beginnings.

    Args:
        content: The content, some whole pages.
    """

    def __init__(self, content: bytes) -> None:
        self._content = np.frombuffer(content, np.uint8).copy()
        self.begin()
        _number(self._content, self._first)

    def __len__(self) -> int:
        return len(self._content)

    def begin(self) -> None:
        """Begin anew, with pages that have not been."""
        self._first = next(_NUMBERS)

    def fill(self, at: int, room: memoryview) -> None:
        """Copy the pages from some offset on to where they are received, as a socket's bytes come."""
        into = np.frombuffer(room, np.uint8)
        begin = at % len(self._content)
        # Without the interpreter's lock.
        np.copyto(into, self._content[begin : begin + len(into)])
        _number(into, self._first + at // PAGE_BYTES)

    def piece(self, at: int, size: int) -> memoryview:
        """Return some from an offset on; good until as much has come as there is content."""
        begin = at % len(self._content)
        piece = self._content[begin : begin + size]
        _number(piece, self._first + at // PAGE_BYTES)
        return piece.data


def _number(pages: npt.NDArray[np.uint8], first: int) -> None:
    whole = pages[: len(pages) // PAGE_BYTES * PAGE_BYTES].view(np.uint64)
    numbers = whole[:: PAGE_BYTES // 8]
    numbers[:] = np.arange(first, first + len(numbers), dtype=np.uint64)


def _local(folder: Path, content: bytes, mib: int, rounds: int, codec: str) -> None:
    target = LocalStore(folder / "direct", mkdir=True)
    stored, stored_mib = content, float(mib)
    if codec == "zstd":
        frames = _frames(_Pages(content), len(content))
        stored = b"".join(zstd.compress(frame, _OPTIONS.level) for frame in frames)
        stored_mib = mib * len(stored) / len(content)

    pages, beside = _Pages(content), _Pages(stored)

    def tidy() -> None:
        shutil.rmtree(folder / "store", ignore_errors=True)
        (folder / "direct" / "x").unlink(missing_ok=True)

    def durable() -> None:
        _direct(target, beside, stored_mib)
        descriptor = os.open(folder / "direct" / "x", os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    seconds = interleaved(
        rounds,
        {
            "ours": lambda: _ours(Store.open(folder / "store"), codec, pages, mib),
            "durable": durable,
            "direct": lambda: _direct(target, beside, stored_mib),
        },
        tidy=tidy,
    )
    tidy()
    what = "to the disk, zstd" if codec == "zstd" else "to the disk, as it is"
    also = ", compressed before" if codec == "zstd" else ""
    _row(what, f"obstore + fsync{also}", mib, seconds["ours"], seconds["durable"])
    _row(what, f"obstore{also}", mib, seconds["ours"], seconds["direct"])


def _compressed(content: bytes, mib: int, rounds: int) -> None:
    pages = _Pages(content)

    def alone() -> None:
        keep_buffers()
        with ThreadPoolExecutor(_OPTIONS.workers) as pool:
            frames = _frames(pages, mib * _MIB)
            for _ in pool.map(lambda frame: len(zstd.compress(frame, _OPTIONS.level)), frames):
                pass

    seconds = interleaved(
        rounds,
        {
            "ours": lambda: _ours(Store.over(_Nowhere(), create=True), "zstd", pages, mib),
            "alone": alone,
        },
    )
    threads = f"zstd alone, {_OPTIONS.workers} thread{'s' if _OPTIONS.workers > 1 else ''}"
    _row("to nowhere, zstd", threads, mib, seconds["ours"], seconds["alone"])


def _frames(pages: _Pages, size: int) -> Iterator[memoryview]:
    # Each is compressed by itself: here it is no matter that they come again.
    view = pages.piece(0, len(pages))
    for at in range(0, size, _OPTIONS.frame_bytes):
        yield view[at % len(view) :][: _OPTIONS.frame_bytes]


class _Nowhere(MemoryBackend):
    """Throws segments away."""

    def create(self, name: str, *, bulk: bool = False) -> ObjectWriter:
        return _Nothing() if bulk else super().create(name)


class _Nothing:
    def __init__(self) -> None:
        self.size_bytes = 0

    def append(self, data: Data) -> int:
        offset = self.size_bytes
        self.size_bytes += len(data)
        return offset

    def commit(self) -> None:
        pass

    def abort(self) -> None:
        pass


def _bucket(server: S3Server, content: bytes, mib: int, rounds: int) -> None:
    bucket = server.new_bucket()
    pages = _Pages(content)
    target = S3Store(
        bucket, endpoint=server.endpoint, region="us-east-1", client_options={"allow_http": True}
    )

    def tidy() -> None:
        # moto keeps everything in memory.
        names = [entry["path"] for page in obstore.list(target) for entry in page]
        if names:
            obstore.delete(target, names)

    seconds = interleaved(
        rounds,
        {
            "ours": lambda: _ours(Store.open(f"s3://{bucket}/x"), "none", pages, mib),
            "direct": lambda: _direct(target, pages, mib),
        },
        tidy=tidy,
    )
    tidy()
    _row("to S3 on loopback, as it is", "obstore", mib, seconds["ours"], seconds["direct"])


def _ours(store: Store, codec: str, source: _Pages, mib: int) -> None:
    """Put pages into a snapshot as the page server does: received straight into the buffers of frames."""
    source.begin()
    with store.begin("key", attrs.evolve(_OPTIONS, codec=codec)) as writer:
        for begin in range(0, mib * _MIB, len(source)):
            at, end = begin, min(begin + len(source), mib * _MIB)
            writer.pages.run(_SPACE, begin, (end - begin) // PAGE_BYTES, 4)
            while at < end:
                room = writer.pages.reserve(min(_STEP_BYTES, end - at))
                count = len(room)
                source.fill(at, room)
                writer.pages.filled(count)
                at += count
        writer.commit()


def _direct(target: LocalStore | S3Store, source: _Pages, mib: float) -> None:
    source.begin()

    def pieces() -> Iterator[memoryview]:
        at, size = 0, int(mib * _MIB)
        while at < size:
            count = min(PART_BYTES, size - at, len(source) - at % len(source))
            # Those under way are fewer than what `source` has.
            yield source.piece(at, count)
            at += count

    obstore.put(
        target, "x", pieces(), use_multipart=True, chunk_size=PART_BYTES, max_concurrency=_AT_ONCE
    )


def _row(what: str, other: str, mib: int, ours: list[float], theirs: list[float]) -> None:
    # Of speeds: more is better.
    print(
        f"| {what} | {_speed(mib, ours)} | {other} | {_speed(mib, theirs)} | {ratio(theirs, ours):.2f} |",
        flush=True,
    )


def _speed(mib: int, seconds: list[float]) -> str:
    speeds = sorted(mib / one for one in seconds)
    return f"{statistics.median(speeds):.0f} [{speeds[0]:.0f}-{speeds[-1]:.0f}]"


@contextlib.contextmanager
def _environment(names: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(names)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
