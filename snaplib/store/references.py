"""Which objects are still referred to: those of snapshots, and segments that other snapshots use.

A segment outlives the snapshot that wrote it for as long as a later one has pages in it.  Who is
going to refer to a segment claims it before looking whether its parent is still there; who removes
a snapshot deletes its manifest before looking for claims.  So one of the two sees the other.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from snaplib.errors import SnapshotDamaged, StoreTooNew
from snaplib.store import names
from snaplib.store.manifest import Snapshot

if TYPE_CHECKING:
    from snaplib.store.backend import Backend

__all__ = ["References"]


class References:
    """What is referred to in a store, for one round of cleaning up.

    Args:
        backend: Where its bytes are.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._known: set[str] = set()
        #: Folders that have lost their snapshot, with the segments in them that are needed.
        self._partly: dict[str, set[str]] = {}

    def keep(self, snapshot_id: str) -> bool:
        """Tell whether anything in a folder is still needed, of which nobody is the writer."""
        if snapshot_id not in self._known:
            # Anew: it may have been committed since.
            self._known = set(self._manifests())
        if snapshot_id in self._known:
            return True
        try:
            used = self._used(snapshot_id)
        except (SnapshotDamaged, StoreTooNew):
            # Nobody knows what that manifest refers to.
            return True
        if used:
            self._partly[snapshot_id] = used
        return bool(used)

    def delete_rest(self) -> None:
        """Delete what is not needed in folders that were kept for some of their segments."""
        for snapshot_id, used in self._partly.items():
            self._delete_unused(snapshot_id, used)

    def collect(self, snapshot_id: str) -> None:
        """Delete what is not needed of a snapshot that has been removed."""
        if snapshot_id in self._manifests():
            return
        try:
            used = self._used(snapshot_id)
        except (SnapshotDamaged, StoreTooNew):
            return
        if used:
            self._delete_unused(snapshot_id, used)
        else:
            self._backend.delete_folder(names.object_folder(snapshot_id))

    def _delete_unused(self, snapshot_id: str, used: set[str]) -> None:
        for name in list(self._backend.names(names.object_folder(snapshot_id))):
            if name.rpartition("/")[2] not in used:
                self._backend.delete(name)

    def _manifests(self) -> dict[str, str]:
        """Return the names of all manifests, by the ids of their snapshots."""
        return {
            name.rpartition("/")[2].removesuffix(".json"): name
            for name in self._backend.names(names.MANIFESTS)
            if name.endswith(".json")
        }

    def _used(self, snapshot_id: str) -> set[str]:
        """Return the segments of a snapshot without a manifest that others refer to."""
        # Claims first: one that is taken back meanwhile is in a manifest by then.
        claims = self._claims()
        manifests = self._manifests()
        used = {
            segment
            for claimer, claimed in claims.items()
            if claimer not in manifests
            for owner, segment in claimed
            if owner == snapshot_id
        }
        for name in manifests.values():
            with contextlib.suppress(FileNotFoundError):
                segments = Snapshot.from_json(self._backend.get(name), name).segments
                used.update(one.name for one in segments if one.owner == snapshot_id)
        return used

    def _claims(self) -> dict[str, list[list[str]]]:
        found = {}
        for name in list(self._backend.names(names.OBJECTS)):
            folder, _, last = name.rpartition("/")
            if last == names.USES:
                with contextlib.suppress(FileNotFoundError):
                    try:
                        found[folder.rpartition("/")[2]] = json.loads(self._backend.get(name))
                    except ValueError as error:
                        raise SnapshotDamaged(f"{name} is not what was written") from error
        return found
