"""Claims: what says, while a snapshot is being written, which objects of earlier ones it is going to need.

A claim is put before it is looked whether the snapshot is still there that it claims from; who removes that one deletes
its manifest before looking for claims.  So one of the two sees the other.  Once the new snapshot has its manifest, that
says the same.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from snaplib.errors import NoSuchSnapshot, SnapshotDamaged, StoreError
from snaplib.store import names
from snaplib.store.manifest import Borrowed
from snaplib.store.presence import present

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from snaplib.store.backend import Backend
    from snaplib.store.manifest import Segment, Snapshot
    from snaplib.store.parent import Parent

__all__ = ["Claims", "claims_in"]


class Claims:
    """What one new snapshot claims.

    Args:
        backend: Where.
        key: The new snapshot's key; only what is of the same one can be claimed.
        snapshot_id: Its id.
    """

    def __init__(self, backend: Backend, key: str, snapshot_id: str) -> None:
        self._backend = backend
        self._key = key
        self._id = snapshot_id
        self._has_segments = False
        #: What may be borrowed, and what is, by its reference.
        self._lent: dict[str, Borrowed] = {}
        self._borrowed: dict[str, Borrowed] = {}

    def segments(self, parent: Parent) -> None:
        """Have the parent's segments kept, whatever becomes of the parent.

        Raises:
            NoSuchSnapshot: It has been removed.
            StoreError: That could not be stored.
        """
        self._has_segments = True
        self._put(names.USES, [(segment.owner, segment.name) for segment in parent.segments])
        if not self._is_there(parent.id):
            raise NoSuchSnapshot(f"snapshot {parent.id} has been removed") from None

    def objects(self, lender: Snapshot, wanted: Callable[[str], bool]) -> list[Borrowed]:
        """Have objects of an earlier snapshot kept; see `SnapshotWriter.claim_objects`."""
        lent = [one for one in lender.borrowed if wanted(one.name)]
        lent += [
            Borrowed(lender.id, name, one.size_bytes, one.blake3)
            for name, one in lender.objects.items()
            if one.blake3 is not None and wanted(name)
        ]
        if self._lent or lender.key != self._key or not lent:
            return list(self._lent.values())
        self._put(names.BORROWS, [(one.owner, one.name) for one in lent])
        if not self._is_there(lender.id):
            self._backend.delete(names.object_name(self._id, names.BORROWS))
            return []
        self._lent = {one.reference: one for one in lent}
        return lent

    def _put(self, name: str, claimed: Sequence[tuple[str, str]]) -> None:
        self._backend.put_new(names.object_name(self._id, name), json.dumps(claimed).encode())

    def _is_there(self, snapshot_id: str) -> bool:
        """Look whether a snapshot that has been claimed from is still there."""
        try:
            self._backend.get(names.manifest_name(self._key, snapshot_id))
        except FileNotFoundError:
            return False
        return True

    def borrow(self, reference: str) -> None:
        """Make one of `objects` part of the new snapshot, given its `Borrowed.reference`."""
        self._borrowed[reference] = self._lent[reference]

    def borrow_nothing(self) -> None:
        """Forget what has been borrowed; it stays claimed."""
        self._borrowed.clear()

    @property
    def borrowed(self) -> tuple[Borrowed, ...]:
        """What is borrowed, in the order of references."""
        return tuple(self._borrowed[one] for one in sorted(self._borrowed))

    def check(self, segments: Sequence[Segment]) -> None:
        """Make sure that segments which the manifest is going to name of earlier snapshots are there.

        Raises:
            StoreError: One is not, or nobody knows.
        """
        for segment, found in zip(segments, present(self._backend, segments), strict=True):
            if not found:
                name = names.object_name(segment.owner, segment.name)
                raise StoreError(
                    f"{name}, where an earlier snapshot has pages of the task, is missing or cut short",
                    hint="dump again: what is there no more is stored anew",
                )

    def release(self) -> None:
        """Take all claims back, once the manifest says the same.

        Raises:
            StoreError: The store does not say whether it has done so.
        """
        if self._has_segments:
            self._backend.delete(names.object_name(self._id, names.USES))
        if self._lent:
            self._backend.delete(names.object_name(self._id, names.BORROWS))


def claims_in(backend: Backend) -> dict[str, list[tuple[str, str]]]:
    """Return what is claimed in a store: owner and name of each object, by the ids of those that claim.

    Args:
        backend: Where.

    Raises:
        SnapshotDamaged: A claim is not what was written.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for name in list(backend.names(names.OBJECTS)):
        folder, _, last = name.rpartition("/")
        if last in (names.USES, names.BORROWS):
            with contextlib.suppress(FileNotFoundError):
                try:
                    claimed = json.loads(backend.get(name))
                    pairs = [(str(owner), str(one)) for owner, one in claimed]
                    found.setdefault(folder.rpartition("/")[2], []).extend(pairs)
                except (ValueError, TypeError) as error:
                    raise SnapshotDamaged(f"{name} is not what was written") from error
    return found
