"""Checking every byte of a snapshot."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import attrs
import numpy as np

from snaplib.errors import SnapshotDamaged, StoreError
from snaplib.store import archive, names
from snaplib.store.bulk import BLOCK_BYTES
from snaplib.store.codec import ZERO
from snaplib.store.manifest import StoredObject
from snaplib.store.objectio import ObjectStream
from snaplib.store.saved import SnapshotReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from snaplib.store.backend import Backend, ObjectReader
    from snaplib.store.manifest import Snapshot
    from snaplib.store.reader import PageLogReader

__all__ = ["Finding", "Verification", "verify"]

_PIECE_BYTES = 1 << 20


@attrs.frozen
class Finding:
    """Something that is not as it was written.

    Attributes:
        object: The object it is in, by its name in the store.
        offset: Where in it, in bytes; None if that cannot be told.
        problem: What is wrong.
    """

    object: str
    offset: int | None
    problem: str

    def __str__(self) -> str:
        """One line for people."""
        where = "" if self.offset is None else f", offset {self.offset}"
        return f"{self.object}{where}: {self.problem}"


@attrs.frozen
class Verification:
    """What a check of a snapshot has found.

    Attributes:
        id: The snapshot.
        checked_bytes: How many stored bytes were read.
        findings: What is wrong.
    """

    id: str
    checked_bytes: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def raise_if_damaged(self) -> None:
        """Raise what is wrong, if anything is.

        Raises:
            SnapshotDamaged: Naming the first finding.
        """
        if self.findings:
            more = f", and {len(self.findings) - 1} more" if len(self.findings) > 1 else ""
            raise SnapshotDamaged(f"snapshot {self.id} is damaged: {self.findings[0]}{more}")


def verify(
    backend: Backend, snapshot: Snapshot, progress: Callable[[int, int], None] | None = None
) -> Verification:
    """Read all objects of a snapshot and check them against manifest, index and checksums.

    Args:
        backend: Where it is.
        snapshot: What its manifest says.
        progress: Called with the bytes read so far and all there are to read.
    """
    check = _Check(backend, snapshot, progress)
    findings = tuple(check.run())
    return Verification(snapshot.id, check.done_bytes, findings)


class _Check:
    def __init__(
        self,
        backend: Backend,
        snapshot: Snapshot,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._backend = backend
        self._snapshot = snapshot
        self._progress = progress
        self._whole = {
            name: stored for name, stored in snapshot.objects.items() if stored.blake3 is not None
        }
        for one in snapshot.borrowed:
            self._whole[one.reference] = StoredObject(one.size_bytes, one.blake3)
        others = [one for one in snapshot.needed if one.owner != snapshot.id]
        self._total_bytes = snapshot.stored_bytes + sum(one.size_bytes for one in others)
        self.done_bytes = 0

    def run(self) -> Iterator[Finding]:
        sound = True
        for name in self._whole:
            findings = list(self._hashed(name))
            yield from findings
            sound = sound and not (findings and name == names.INDEX)
        if names.INDEX not in self._whole:
            yield self._finding(names.INDEX, None, "the manifest does not name it")
        elif sound:
            with SnapshotReader(self._backend, self._snapshot) as reader:
                yield from self._paged(reader)

    def _hashed(self, name: str) -> Iterator[Finding]:
        """Check an object that has a hash of its own."""
        expected = self._whole[name]
        try:
            reader = self._backend.open(self._name(name))
        except FileNotFoundError:
            yield self._finding(name, None, "is missing")
            return
        try:
            stream = ObjectStream(reader)
            with io.BufferedReader(stream, _PIECE_BYTES) as source:
                if name == names.IMAGES:
                    try:
                        archive.unpack(source, None)
                    except ValueError as error:
                        at = stream.stored().size_bytes
                        yield self._finding(name, at, f"not a whole archive: {error}")
                while source.read(_PIECE_BYTES):
                    pass
            found = stream.stored()
        except StoreError as error:
            yield self._finding(name, None, error.message)
            return
        self._advance(found.size_bytes)
        if found.size_bytes != expected.size_bytes:
            problem = f"{found.size_bytes} bytes instead of {expected.size_bytes}"
            yield self._finding(name, min(found.size_bytes, expected.size_bytes), problem)
        elif found != expected:
            yield self._finding(name, 0, "its hash is not that of the manifest")

    def _paged(self, reader: SnapshotReader) -> Iterator[Finding]:
        """Check the index against itself, and the segments against the index."""
        try:
            pages = reader.pages
        except SnapshotDamaged as error:
            yield self._finding(names.INDEX, None, error.message)
            return
        for problem in pages.index.problems():
            yield self._finding(names.INDEX, None, problem)
        if pages.index.pages != self._snapshot.pages:
            problem = f"{pages.index.pages} pages instead of {self._snapshot.pages}"
            yield self._finding(names.INDEX, None, problem)
        frames = pages.index.frames
        stored = frames["codec"] != ZERO
        used = np.unique(frames["segment"][stored]).tolist()
        if used != list(range(len(self._snapshot.segments))):
            problem = "its segments are not those that the manifest names"
            yield self._finding(names.INDEX, None, problem)
            return
        for number in used:
            order = np.flatnonzero(stored & (frames["segment"] == number))
            order = order[np.argsort(frames["offset"][order], kind="stable")]
            # What is the same several times is there once.
            same = frames[order[1:]] == frames[order[:-1]]
            order = order[np.concatenate(([True], ~same))]
            yield from self._segment(pages, number, order.tolist())

    def _segment(self, pages: PageLogReader, number: int, order: list[int]) -> Iterator[Finding]:
        """Check a segment's frames, and that there is nothing else in it."""
        expected = self._snapshot.segments[number]
        name = names.object_name(expected.owner, expected.name)
        try:
            segment = self._backend.open(name, bulk=True)
        except FileNotFoundError:
            yield Finding(name, None, "is missing")
            return
        end = 0
        offsets = pages.index.frames["offset"][order]
        # Frames of which no page is needed may lie anywhere between the others; but where all are at
        # multiples of a block, what follows a frame up to the next is padding.
        padded = not (offsets % BLOCK_BYTES).any() and not segment.size_bytes % BLOCK_BYTES
        try:
            for frame in order:
                entry = pages.index.frames[frame]
                offset, size = int(entry["offset"]), int(entry["stored_bytes"])
                yield from self._gap(segment, name, end, offset, padded=padded)
                try:
                    pages.frame(frame)
                except SnapshotDamaged as error:
                    yield Finding(name, offset, error.message.rpartition(": ")[2])
                except StoreError as error:
                    yield Finding(name, offset, error.message)
                self._advance(size + segment.seal_bytes)
                end = offset + size + segment.seal_bytes
            size = max(end, segment.size_bytes)
            yield from self._gap(segment, name, end, size, padded=padded)
            if segment.size_bytes != expected.size_bytes:
                problem = f"{segment.size_bytes} bytes instead of {expected.size_bytes}"
                at = min(segment.size_bytes, expected.size_bytes)
                yield Finding(name, at, problem)
        finally:
            segment.close()

    def _gap(
        self, segment: ObjectReader, name: str, begin: int, end: int, *, padded: bool
    ) -> Iterator[Finding]:
        """Check what lies between two frames."""
        if end < begin:
            yield Finding(name, end, "two frames overlap")
            return
        padding = min(end - begin, -begin % BLOCK_BYTES) if padded else 0
        if segment.read(begin, padding).strip(b"\0"):
            yield Finding(name, begin, "something stands between two frames")
        self._advance(end - begin)

    def _advance(self, count: int) -> None:
        self.done_bytes += count
        if self._progress is not None:
            self._progress(self.done_bytes, self._total_bytes)

    def _name(self, name: str) -> str:
        owner, _, own = name.rpartition("/")
        return names.object_name(owner or self._snapshot.id, own)

    def _finding(self, name: str, offset: int | None, problem: str) -> Finding:
        return Finding(self._name(name), offset, problem)
