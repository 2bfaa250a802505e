"""Writing one snapshot: its objects first, its manifest last."""

from __future__ import annotations

import contextlib
import datetime as dt
import shutil
from typing import IO, TYPE_CHECKING, Any, Self

import attrs
import numpy as np
import numpy.typing as npt

from snaplib import __version__
from snaplib.arrays import distinct
from snaplib.errors import StoreError, StoreUnreachable, UsageError
from snaplib.store import archive, names
from snaplib.store.blocks import blocks_to_bytes
from snaplib.store.claims import Claims
from snaplib.store.codec import ZERO
from snaplib.store.index import PAGE_BYTES, Index
from snaplib.store.index_format import index_to_bytes
from snaplib.store.logoptions import PageLogOptions
from snaplib.store.manifest import Borrowed, Segment, Snapshot, StoredObject
from snaplib.store.ownobjects import OwnObjects
from snaplib.store.pagelog import PageLogWriter
from snaplib.store.parent import Parent
from snaplib.store.segments import SegmentWriter
from snaplib.store.wear import worn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path, PurePosixPath

    from snaplib.store.backend import Backend
    from snaplib.store.runs import RunSet

__all__ = ["SnapshotWriter"]

_COPY_BYTES = 1 << 20

#: Names that no stream may have.
_RESERVED = frozenset(
    {names.INDEX, names.IMAGES, names.BLOCKS, names.USES, names.BORROWS, names.KEY}
)


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
        self._open = True
        #: Whether `commit` has been tried; and whether it is not known if the manifest is there.
        self._finishing = False
        self._is_uncertain = False
        self._hold = backend.hold(names.object_folder(snapshot_id))
        self._objects = OwnObjects(backend, snapshot_id)
        self._claims = Claims(backend, key, snapshot_id)
        self._parent = parent
        self._inherited = parent.segments if parent else ()
        try:
            if parent is not None:
                self._claims.segments(parent)
        except BaseException:
            self._objects.close()
            self._discard()
            raise
        options = options or PageLogOptions()
        self._segments = SegmentWriter(
            lambda number: backend.create(
                names.object_name(snapshot_id, names.segment(number)), bulk=True
            ),
            options.segment_bytes,
            first=len(self._inherited),
        )
        self.pages = PageLogWriter(self._segments, options, parent.pages if parent else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.abort()

    @property
    def open(self) -> bool:
        """Whether it is neither committed nor aborted."""
        return self._open

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

        def put() -> None:
            self._objects.put(names.IMAGES, lambda output: archive.pack(path, output, exclude))

        if wait:
            put()
        else:
            self._objects.aside(put)

    def put_stream(self, name: str, source: IO[bytes]) -> None:
        """Store all that can be read from a file as an object.

        Args:
            name: The object's name, without slashes, such as ``streams-1``.
            source: The file, read to its end.

        Raises:
            UsageError: The name cannot be used.
            StoreError: It could not be stored.
        """
        if not name or "/" in name or name.startswith((".", "segment-")) or name in _RESERVED:
            raise UsageError(f"{name!r} cannot be the name of a stream")
        self._objects.put(name, lambda output: shutil.copyfileobj(source, output, _COPY_BYTES))

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
        return self._claims.objects(lender, wanted)

    def borrow(self, reference: str) -> None:
        """Make an object of `claim_objects` part of this snapshot.

        Args:
            reference: Its `Borrowed.reference`.
        """
        self._claims.borrow(reference)

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
                self._objects.aside(self._put_bytes, names.BLOCKS, blocks_to_bytes(blocks))
            self._put_bytes(names.INDEX, index_to_bytes(index))
            # What becomes durable side by side costs a disk hardly more than one of it.
            self._objects.wait()
            objects = self._objects.all()
            inherits = any(segment.owner != self.id for segment in segments)
            snapshot = Snapshot(
                id=self.id,
                key=self.key,
                created_at=self._created.astimezone(dt.UTC).isoformat(),
                snaplib_version=__version__,
                objects=objects,
                raw_bytes=index.pages * PAGE_BYTES,
                stored_bytes=sum(entry.size_bytes for entry in objects.values()),
                pages=index.pages,
                segments=segments,
                borrowed=self._claims.borrowed,
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
        self._objects.close()
        self.pages.close()
        # From now on the manifest says it.
        with contextlib.suppress(StoreError):
            self._claims.release()
        self._hold.release()
        return snapshot

    def _put_bytes(self, name: str, data: bytes) -> None:
        self._objects.put(name, lambda output: output.write(data))

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
        used = _renumbered(index.frames)
        self._objects.aside(self._segments.commit, used)
        everything = self._all_segments()
        segments = tuple(everything[number] for number in used)
        inherited = [segment for segment in segments if segment.owner != self.id]
        self._objects.aside(self._claims.check, inherited)
        for segment in segments:
            if segment.owner == self.id:
                self._objects.add(segment.name, StoredObject(segment.size_bytes))
        return index, segments

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
        given_up = worn(live, sizes, complete).tolist()
        self.pages.give_up(given_up)
        return self.pages.pages_in(given_up)

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
        self._objects.settle()
        lost = self.pages.retract(salvage=self._finishing or self.pages.failed)
        self._finishing = False
        self._claims.borrow_nothing()
        self._objects.retract(but=[segment.name for segment in self._all_segments()])
        return lost

    def as_parent(self) -> Parent:
        """Return what the next snapshot can be incremental to, once this one is committed."""
        content = self.pages.content()
        # What else the log has may be in segments that nobody wanted.
        places = content.places.within(self.pages.declared())
        content = attrs.evolve(content, places=places).compacted()
        used = _renumbered(content.frames)
        everything = self._all_segments()
        return Parent(self.id, content, tuple(everything[number] for number in used))

    def abort(self) -> None:
        """Remove all that was written; does nothing after `commit`, and may be called again."""
        if not self._open:
            return
        self._open = False
        try:
            self._objects.close()
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


def _renumbered(frames: npt.NDArray[np.void]) -> list[int]:
    """Number the segments of frames anew, without gaps; return those that have been in use, by their new numbers."""
    stored = frames["codec"] != ZERO
    used = distinct(frames["segment"][stored])
    frames["segment"] = np.where(stored, np.searchsorted(used, frames["segment"]), 0)
    numbers: list[int] = used.tolist()
    return numbers
