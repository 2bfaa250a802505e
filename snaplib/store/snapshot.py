"""Writing one snapshot: its objects first, its manifest last."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Any, Self

import attrs
import numpy as np

from snaplib import __version__
from snaplib.arrays import distinct
from snaplib.errors import NoSuchSnapshot, StoreError, StoreUnreachable, UsageError
from snaplib.store import archive, names
from snaplib.store.blocks import blocks_to_bytes
from snaplib.store.codec import ZERO
from snaplib.store.index import PAGE_BYTES, Index
from snaplib.store.index_format import index_to_bytes
from snaplib.store.manifest import Borrowed, Segment, Snapshot, StoredObject
from snaplib.store.objectio import HashingWriter
from snaplib.store.pagelog import LoggedPages, PageLogOptions, PageLogWriter
from snaplib.store.presence import present
from snaplib.store.runs import RunSet
from snaplib.store.segments import SegmentWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path, PurePosixPath

    from snaplib.store.backend import Backend, ObjectWriter

__all__ = ["MOST_SEGMENTS", "Parent", "SnapshotWriter"]

_COPY_BYTES = 1 << 20

#: A segment of which a smaller share is needed is given up.
_LEAST_LIVE = 0.4
#: More segments than this are not kept for one snapshot.
MOST_SEGMENTS = 96


@attrs.frozen(eq=False)
class Parent:
    """What the next snapshot of a task can be incremental to.

    Attributes:
        id: The snapshot.
        pages: The pages that are known to be as they are there.
        segments: Where those are.
        is_lent: Whether nothing is known of the task's pages, so that each must be found by its content.
    """

    id: str
    pages: LoggedPages
    segments: tuple[Segment, ...]
    is_lent: bool = False


class SnapshotWriter:
    """Writes a snapshot; as a context manager it aborts unless `commit` was called.

    Nobody sees the snapshot before it is committed, and whatever ends the writer before, even
    SIGKILL, leaves nothing that the next writer does not clean up.

    Args:
        backend: Where to write.
        key: Which task it is of.
        snapshot_id: The new id.
        created: When it was begun, with its zone.
        options: How to write pages.
        parent: A snapshot of the same key that it may be incremental to.

    Raises:
        NoSuchSnapshot: The parent has been removed.

    Attributes:
        id: The id it will have.
        key: Its key.
        pages: Where its pages go.
    """

    def __init__(
        self,
        backend: Backend,
        key: str,
        snapshot_id: str,
        created: dt.datetime,
        options: PageLogOptions | None = None,
        *,
        parent: Parent | None = None,
    ) -> None:
        self.id = snapshot_id
        self.key = key
        self._backend = backend
        self._created = created
        self._objects: dict[str, StoredObject] = {}
        #: What is stored beside the rest, and what of it `commit` has to wait for.
        self._aside = ThreadPoolExecutor(2, "snaplib-aside")
        self._waiting: list[Future[None]] = []
        self._open = True
        #: Whether `commit` has been tried; and whether it is not known if the manifest is there.
        self._finishing = False
        self._is_uncertain = False
        #: Objects that were to be deleted and are perhaps still there.
        self._left_over: set[str] = set()
        self._hold = backend.hold(names.object_folder(snapshot_id))
        #: What may be borrowed, and what is, by its reference.
        self._lent: dict[str, Borrowed] = {}
        self._borrowed: dict[str, Borrowed] = {}
        self._parent = parent
        self._inherited = parent.segments if parent else ()
        try:
            if parent is not None:
                self._claim(parent)
        except BaseException:
            self._discard()
            raise
        options = options or PageLogOptions()
        self._segments = SegmentWriter(
            lambda number: self._create(names.segment(number), bulk=True),
            options.segment_bytes,
            first=len(self._inherited),
        )
        self.pages = PageLogWriter(self._segments, options, parent.pages if parent else None)

    def _claim(self, parent: Parent) -> None:
        """Have the parent's segments kept, whatever becomes of the parent."""
        claimed = [[segment.owner, segment.name] for segment in parent.segments]
        name = names.object_name(self.id, names.USES)
        self._backend.put_new(name, json.dumps(claimed).encode())
        # In this order: who removes the parent deletes its manifest before looking for claims.
        try:
            self._backend.get(names.manifest_name(self.key, parent.id))
        except FileNotFoundError:
            raise NoSuchSnapshot(f"snapshot {parent.id} has been removed") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.abort()

    @property
    def open(self) -> bool:
        """Whether it is neither committed nor aborted."""
        return self._open

    def _create(self, name: str, *, bulk: bool = False) -> ObjectWriter:
        return self._backend.create(names.object_name(self.id, name), bulk=bulk)

    def put_directory(
        self,
        path: Path,
        exclude: Callable[[PurePosixPath], bool] | None = None,
        *,
        wait: bool = True,
    ) -> None:
        """Store a folder of small files, CRIU's images, as one object.

        Args:
            path: The folder.
            exclude: Whether to leave a path out, given it relative to the folder.
            wait: Wait until it is stored, or leave that to `commit`, which then tells what went wrong.

        Raises:
            StoreError: It could not be stored.
        """
        done = self._aside.submit(
            self._put, names.IMAGES, lambda output: archive.pack(path, output, exclude)
        )
        if wait:
            done.result()
        else:
            self._waiting.append(done)

    def put_stream(self, name: str, source: IO[bytes]) -> None:
        """Store all that can be read from a file as an object.

        Args:
            name: The object's name, without slashes, such as ``streams-1``.
            source: The file, read to its end.

        Raises:
            UsageError: The name cannot be used.
            StoreError: It could not be stored.
        """
        reserved = (
            names.INDEX,
            names.IMAGES,
            names.BLOCKS,
            names.USES,
            names.BORROWS,
            names.KEY,
        )
        if not name or "/" in name or name.startswith((".", "segment-")) or name in reserved:
            raise UsageError(f"{name!r} cannot be the name of a stream")
        self._put(name, lambda output: shutil.copyfileobj(source, output, _COPY_BYTES))

    def claim_objects(self, lender: Snapshot, wanted: Callable[[str], bool]) -> list[Borrowed]:
        """Have objects of an earlier snapshot kept, so that this one can `borrow` them.

        Args:
            lender: A snapshot of the same key.  This is done once for each new snapshot.
            wanted: Whether one is wanted, given its name.

        Returns:
            Those that can be borrowed, or could already; none if the lender has been removed.

        Raises:
            StoreError: It could not be stored.
        """
        lent = [one for one in lender.borrowed if wanted(one.name)]
        lent += [
            Borrowed(lender.id, name, one.size_bytes, one.blake3)
            for name, one in lender.objects.items()
            if one.blake3 is not None and wanted(name)
        ]
        if self._lent or lender.key != self.key or not lent:
            return list(self._lent.values())
        claimed = json.dumps([[one.owner, one.name] for one in lent]).encode()
        claim = names.object_name(self.id, names.BORROWS)
        self._backend.put_new(claim, claimed)
        try:
            # After the claim, as with segments.
            self._backend.get(names.manifest_name(self.key, lender.id))
        except FileNotFoundError:
            self._backend.delete(claim)
            return []
        self._lent = {one.reference: one for one in lent}
        return lent

    def borrow(self, reference: str) -> None:
        """Make an object of `claim_objects` part of this snapshot.

        Args:
            reference: Its `Borrowed.reference`.
        """
        self._borrowed[reference] = self._lent[reference]

    def _put(self, name: str, write: Callable[[IO[bytes]], None]) -> None:
        if name in self._objects:
            raise UsageError(f"the snapshot has an object {name} already")
        if name in self._left_over:
            self._backend.delete(names.object_name(self.id, name))
            self._left_over.remove(name)
        writer = self._create(name)
        try:
            hashing = HashingWriter(writer)
            buffered = io.BufferedWriter(hashing, _COPY_BYTES)
            write(buffered)
            buffered.flush()
            writer.commit()
        except BaseException:
            writer.abort()
            raise
        self._objects[name] = hashing.stored()

    def commit(
        self,
        *,
        task: Mapping[str, Any] | None = None,
        host: Mapping[str, Any] | None = None,
        streams: Mapping[str, Any] | None = None,
        timings: Mapping[str, float] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Snapshot:
        """Make everything durable, and then the snapshot exist.

        The arguments become the fields of the same names of `Snapshot`; they must be what JSON can
        say.

        Returns:
            The snapshot.

        Raises:
            StoreUnreachable: The store does not answer; after `retract` it can be tried again.
            StoreError: It could not be stored; nothing of it is left.
        """
        if not self._open:
            raise UsageError(f"the snapshot {self.id} is committed or aborted already")
        self._finishing = True
        try:
            index, segments = self._finish()
            if blocks := self.pages.blocks:
                data = blocks_to_bytes(blocks)
                self._waiting.append(
                    self._aside.submit(self._put, names.BLOCKS, lambda output: _write(output, data))
                )
            self._put(names.INDEX, lambda output: _write(output, index_to_bytes(index)))
            # What becomes durable side by side costs a disk hardly more than one of it.
            for done in self._waiting:
                done.result()
            inherits = any(segment.owner != self.id for segment in segments)
            snapshot = Snapshot(
                id=self.id,
                key=self.key,
                created_at=self._created.astimezone(dt.UTC).isoformat(),
                snaplib_version=__version__,
                objects=dict(sorted(self._objects.items())),
                raw_bytes=index.pages * PAGE_BYTES,
                stored_bytes=sum(entry.size_bytes for entry in self._objects.values()),
                pages=index.pages,
                segments=segments,
                borrowed=tuple(self._borrowed[one] for one in sorted(self._borrowed)),
                kind="incremental" if inherits else "full",
                parent=self._parent.id if self._parent and inherits else None,
                task=dict(task or {}),
                host=dict(host or {}),
                streams=dict(streams or {}),
                timings=dict(timings or {}),
                extra=dict(extra or {}),
            )
            try:
                manifest = snapshot.to_json()
            except (TypeError, ValueError) as error:
                raise UsageError(f"a field of the snapshot is not JSON: {error}") from error
            self._put_manifest(manifest)
        except StoreUnreachable:
            if self._is_uncertain:
                self.abort()
            raise
        except BaseException:
            self.abort()
            raise
        self._open = False
        self._aside.shutdown()
        self.pages.close()
        # From now on the manifest says it.
        with contextlib.suppress(StoreError):
            if self._parent is not None:
                self._backend.delete(names.object_name(self.id, names.USES))
            if self._lent:
                self._backend.delete(names.object_name(self.id, names.BORROWS))
        self._hold.release()
        return snapshot

    def _put_manifest(self, manifest: bytes) -> None:
        name = names.manifest_name(self.key, self.id)
        try:
            self._backend.put_new(name, manifest)
        except StoreError:
            # Perhaps it is there, or still on its way: then what it names must be there too.
            self._is_uncertain = not self._backend.local
            try:
                self._backend.delete(name)
            except StoreError:
                self._is_uncertain = True
            raise
        try:
            self._hold.check()
        except StoreError:
            self._backend.delete(name)
            raise

    def _finish(self) -> tuple[Index, tuple[Segment, ...]]:
        """Make the segments durable; return the index, and the segments that it names."""
        index = self.pages.finish()
        frames = index.frames
        stored = frames["codec"] != ZERO
        used = distinct(frames["segment"][stored])
        frames["segment"] = np.where(stored, np.searchsorted(used, frames["segment"]), 0)
        self._waiting.append(self._aside.submit(self._segments.commit, used.tolist()))
        everything = self._all_segments()
        segments = tuple(everything[number] for number in used.tolist())
        inherited = [segment for segment in segments if segment.owner != self.id]
        self._waiting.append(self._aside.submit(self._check_inherited, inherited))
        for segment in segments:
            if segment.owner == self.id:
                self._objects[segment.name] = StoredObject(segment.size_bytes)
        return index, segments

    def _check_inherited(self, segments: list[Segment]) -> None:
        """Make sure that what the manifest is going to name of earlier snapshots is there.

        Raises:
            StoreError: It is not, or nobody knows.
        """
        lost = [
            segment
            for segment, found in zip(segments, present(self._backend, segments), strict=True)
            if not found
        ]
        if lost:
            name = names.object_name(lost[0].owner, lost[0].name)
            raise StoreError(
                f"{name}, where an earlier snapshot has pages of the task, is missing or cut short",
                hint="dump again: what is there no more is stored anew",
            )

    def _all_segments(self) -> tuple[Segment, ...]:
        return self._inherited + tuple(
            Segment(self.id, names.segment(number), size)
            for number, size in enumerate(self._segments.sizes())
        )

    def worn_out(self, *, seen_all: bool = True) -> RunSet:
        """Return the numbers of pages that should be copied anew, so that their segments can go:
        segments of which little is needed, and the smallest where there are very many.

        Args:
            seen_all: Whether every page has been copied once: before that nobody knows what is found in segments that
                are lent.
        """
        segments = self._all_segments()
        live = self.pages.live_bytes(len(segments))
        sizes = np.array([segment.size_bytes for segment in segments], np.float64)
        judged = seen_all or self._parent is None or not self._parent.is_lent
        complete = np.array([judged] * len(self._inherited) + self._segments.full(), np.bool_)
        dead = np.flatnonzero(complete & (live == 0))
        if len(dead):
            # What came meanwhile and was found in one of them holds it.
            self.pages.give_up(dead.tolist())
            live = self.pages.live_bytes(len(segments))
            self._segments.drop(dead[live[dead] == 0].tolist())
        chosen = complete & (live > 0) & (live < _LEAST_LIVE * sizes)
        rest = np.flatnonzero(complete & (live > 0) & ~chosen)
        if len(rest) > MOST_SEGMENTS:
            fewest = rest[np.argsort(live[rest], kind="stable")]
            chosen[fewest[: len(rest) - MOST_SEGMENTS * 3 // 4]] = True
        worn = np.flatnonzero(chosen).tolist()
        self.pages.give_up(worn)
        return self.pages.pages_in(worn)

    def prepare(self) -> None:
        """Have everything ready for the last pages, of which a task waits for the end.

        What is on its way already is not waited for.

        Raises:
            StoreError: Something that came before could not be stored.
        """
        self.pages.set_background(background=False)
        self._segments.prepare()

    def retract(self) -> RunSet:
        """Take back everything but the pages that have been copied ahead and are whole.

        Returns:
            The numbers of the pages whose copies are lost, because the store failed meanwhile.

        Raises:
            StoreError: Nothing can be kept.
        """
        if not self._open or self._hold.lost:
            raise StoreError(f"what was written of snapshot {self.id} is lost")
        for done in self._waiting:
            # Whether it was stored or not, it goes.
            done.exception()
        self._waiting.clear()
        lost = self.pages.retract(salvage=self._finishing or self.pages.failed)
        self._finishing = False
        self._borrowed.clear()
        self._left_over |= self._objects.keys() - {one.name for one in self._all_segments()}
        self._objects.clear()
        # If the store does not answer now, they are overwritten later.
        with contextlib.suppress(StoreUnreachable):
            for name in sorted(self._left_over):
                self._backend.delete(names.object_name(self.id, name))
                self._left_over.remove(name)
        return lost

    def as_parent(self) -> Parent:
        """Return what the next snapshot can be incremental to, once this one is committed."""
        content = self.pages.content()
        # What else the log has may be in segments that nobody wanted.
        places = content.places.within(self.pages.declared())
        content = attrs.evolve(content, places=places).compacted()
        frames = content.frames
        stored = frames["codec"] != ZERO
        used = distinct(frames["segment"][stored])
        frames["segment"] = np.where(stored, np.searchsorted(used, frames["segment"]), 0)
        everything = self._all_segments()
        return Parent(self.id, content, tuple(everything[number] for number in used.tolist()))

    def abort(self) -> None:
        """Remove all that was written; does nothing after `commit`, and may be called again."""
        if not self._open:
            return
        self._open = False
        try:
            self._aside.shutdown()
            self.pages.close()
            if not self._is_uncertain:
                self._segments.abort()
        finally:
            self._discard()

    def _discard(self) -> None:
        try:
            # What is not removed now is debris for the next writer; the error that led here counts.
            if not self._is_uncertain:
                with contextlib.suppress(StoreError):
                    self._backend.delete_folder(names.object_folder(self.id))
        finally:
            self._hold.release()


def _write(output: IO[bytes], data: bytes) -> None:
    output.write(data)
