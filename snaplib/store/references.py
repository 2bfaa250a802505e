"""Which objects are still referred to: those of snapshots, and those that other snapshots use.

A segment outlives the snapshot that wrote it for as long as a later one has pages in it, and so does
an object that a later one has borrowed.  Who is going to refer to one claims it before looking
whether its parent is still there; who removes a snapshot deletes its manifest before looking for
claims.  So one of the two sees the other.

A third may come between: somebody has looked for claims and not yet read the manifests, when a
snapshot is claimed from and then removed.  They would see neither the one nor the other, so whoever
finds that a manifest has gone meanwhile looks again.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

from snaplib.errors import SnapshotDamaged, StoreTooNew
from snaplib.store import names
from snaplib.store.claims import claims_in
from snaplib.store.manifest import Snapshot

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from snaplib.store.backend import Backend

__all__ = ["References", "manifest_names"]

#: How often to look again while snapshots go; after that nobody knows what is referred to, this time.
_MOST_LOOKS = 16


def manifest_names(backend: Backend, folder: str = names.MANIFESTS) -> dict[str, str]:
    """Return the names of manifests, by the ids of their snapshots.

    Args:
        backend: Where they are.
        folder: The folder of all manifests, or of a key's.
    """
    return {
        name.rpartition("/")[2].removesuffix(".json"): name
        for name in backend.names(folder)
        if name.endswith(".json")
    }


class References:
    """What is referred to in a store, for one round of cleaning up.

    Args:
        backend: Where its bytes are.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._known: set[str] = set()
        #: What each manifest refers to, by its name: owner and name.  Manifests never change.
        self._read: dict[str, list[tuple[str, str]]] = {}
        #: The objects that were in use when that was found out last, by their owners.
        self._used: dict[str, set[str]] = {}
        #: Folders that have lost their snapshot and are kept for some of their objects.
        self._partly: set[str] = set()

    def keep(self, snapshot_id: str) -> bool:
        """Tell whether anything in a folder is still needed, of which nobody is the writer."""
        if snapshot_id not in self._known:
            # Anew: it may have been committed since.
            self._known = set(manifest_names(self._backend))
        if snapshot_id in self._known:
            return True
        if snapshot_id not in self._used:
            # Anew as well: it may have been committed, referred to and removed since.
            used = self._find_used()
            if used is None:
                return True
            self._used = used
        if snapshot_id in self._used:
            self._partly.add(snapshot_id)
            return True
        return False

    def delete_rest(self) -> None:
        """Delete what is not needed in folders that were kept for some of their objects."""
        if self._partly:
            self.collect(self._partly)

    def needed_without(self, snapshot_ids: Collection[str]) -> set[str] | None:
        """Return whose objects are needed by others than some snapshots; None if nobody knows.

        Args:
            snapshot_ids: Those that do not count.
        """
        used = self._find_used(snapshot_ids)
        return None if used is None else set(used)

    def collect(self, snapshot_ids: Iterable[str]) -> set[str]:
        """Delete what is not needed of snapshots that have been removed.

        Args:
            snapshot_ids: Their ids.

        Returns:
            Of which of them something stays.
        """
        snapshot_ids = set(snapshot_ids)
        used = self._find_used()
        if used is None:
            return snapshot_ids
        manifests = manifest_names(self._backend)
        for snapshot_id in snapshot_ids:
            if snapshot_id in manifests:
                continue
            if snapshot_id not in used:
                self._backend.delete_folder(names.object_folder(snapshot_id))
                continue
            for name in list(self._backend.names(names.object_folder(snapshot_id))):
                if name.rpartition("/")[2] not in {*used[snapshot_id], names.KEY}:
                    self._backend.delete(name)
        return snapshot_ids & used.keys()

    def _find_used(self, without: Collection[str] = ()) -> dict[str, set[str]] | None:
        """Return the objects that snapshots refer to, or are going to, by their owners; None if nobody knows."""
        used: dict[str, set[str]] = collections.defaultdict(set)
        manifests = manifest_names(self._backend)
        for _ in range(_MOST_LOOKS):
            before = manifests.keys()
            try:
                # Claims first: one that is taken back meanwhile is in a manifest by then.
                claims = claims_in(self._backend)
                manifests = manifest_names(self._backend)
                for claimer, claimed in claims.items():
                    if claimer not in manifests:
                        for owner, one in claimed:
                            used[owner].add(one)
                nothing_gone = before <= manifests.keys()
                for snapshot_id in manifests.keys() - set(without):
                    pairs = self._referred_to(manifests[snapshot_id])
                    nothing_gone = nothing_gone and pairs is not None
                    for owner, one in pairs or ():
                        used[owner].add(one)
            except (SnapshotDamaged, StoreTooNew):
                # Nobody knows what that manifest refers to.
                return None
            if nothing_gone:
                return dict(used)
            # Who has claimed what one had that is gone now may not have been seen.
        return None

    def _referred_to(self, name: str) -> list[tuple[str, str]] | None:
        """Return what a manifest names in its own folder and in others, None if it is gone; it is read once."""
        if name not in self._read:
            try:
                snapshot = Snapshot.from_json(self._backend.get(name), name)
            except FileNotFoundError:
                return None
            self._read[name] = [(one.owner, one.name) for one in snapshot.needed]
        return self._read[name]
