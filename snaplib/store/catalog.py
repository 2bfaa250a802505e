"""The manifests of a store: which there are, and what they say."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from snaplib.errors import NoSuchSnapshot, SnapshotDamaged
from snaplib.store import names
from snaplib.store.manifest import Snapshot
from snaplib.store.references import References, manifest_names
from snaplib.store.sealed import SealedBackend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from snaplib.store.backend import Backend

__all__ = ["Catalog"]


class Catalog:
    """Reads manifests, and removes them.

    Args:
        backend: Where they are.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def names(self, key: str | None = None) -> dict[str, str]:
        """Return the names of manifests by snapshot id.

        Args:
            key: Only those of this key.
        """
        folder = names.MANIFESTS if key is None else names.manifest_folder(key)
        return manifest_names(self._backend, folder)

    def find(self, snapshot_id: str) -> tuple[str, str]:
        """Return the whole id and the name of the manifest.

        Args:
            snapshot_id: The id, or as much of its beginning as no other has.

        Raises:
            NoSuchSnapshot: There is none, or several begin so.
        """
        manifests = self.names()
        if snapshot_id in manifests:
            return snapshot_id, manifests[snapshot_id]
        found = [known for known in manifests if snapshot_id and known.startswith(snapshot_id)]
        if not found:
            raise NoSuchSnapshot(f"{self._backend.url} has no snapshot {snapshot_id!r}")
        if len(found) > 1:
            raise NoSuchSnapshot(
                f"{len(found)} snapshots in {self._backend.url} begin with {snapshot_id!r}",
                hint="give more of the id",
            )
        return found[0], manifests[found[0]]

    def load(self, name: str) -> Snapshot | None:
        """Return a manifest's snapshot; None if it has been removed meanwhile.

        Raises:
            SnapshotDamaged: It is not what was written, or not there.
            StoreTooNew: A newer snaplib wrote it.
        """
        try:
            data = self._backend.get(name)
        except FileNotFoundError:
            return None
        snapshot = Snapshot.from_json(data, name)
        known = self._name_of(snapshot)
        if known not in (name, self._stored(name)):
            raise SnapshotDamaged(f"{name} is the manifest of another snapshot, {known}")
        return snapshot

    def refuse_strangers(self, snapshot: Snapshot) -> None:
        """Make sure that a manifest names nothing of another key's.

        Raises:
            SnapshotDamaged: It does.
        """
        if not snapshot.owners:
            return
        manifests = self.names()
        name = self._name_of(snapshot)
        folder = name.rpartition("/")[0]
        for owner in sorted(snapshot.owners):
            if owner in manifests:
                same = manifests[owner].rpartition("/")[0] == folder
            else:
                try:
                    key = self._backend.get(names.object_name(owner, names.KEY))
                except FileNotFoundError:
                    # It was removed by a snaplib that left no note.
                    continue
                same = key == _key_note(snapshot)
            if not same:
                raise SnapshotDamaged(
                    f"{name} names what is of snapshot {owner}, which is of another key"
                )

    def remove(self, snapshots: Sequence[Snapshot]) -> None:
        """Remove snapshots: at once for whoever looks, and then what nobody else refers to."""
        references = References(self._backend)
        outlived = references.needed_without({snapshot.id for snapshot in snapshots})
        owners: set[str] = set()
        for snapshot in snapshots:
            if outlived is None or snapshot.id in outlived:
                self._note_key(snapshot)
            self._backend.delete(names.manifest_name(snapshot.key, snapshot.id))
            # Its own folder, and those that were kept for it.
            owners |= {snapshot.id, *snapshot.owners}
        # Once, and only now that all manifests are gone.
        kept = references.collect(owners)
        for snapshot in snapshots:
            # Somebody may have claimed something of it since that was asked.
            if snapshot.id in kept and outlived is not None and snapshot.id not in outlived:
                self._note_key(snapshot)

    def _note_key(self, snapshot: Snapshot) -> None:
        """Note of what is left of a snapshot that it is of its key: it must not be taken for another's."""
        note = names.object_name(snapshot.id, names.KEY)
        with contextlib.suppress(FileExistsError):
            self._backend.put_new(note, _key_note(snapshot))

    def _name_of(self, snapshot: Snapshot) -> str:
        """Return the name that a snapshot's manifest has where it is listed."""
        return self._stored(names.manifest_name(snapshot.key, snapshot.id))

    def _stored(self, name: str) -> str:
        """Return the name that an object has where it is listed."""
        return self._backend.seal.name(name) if isinstance(self._backend, SealedBackend) else name


def _key_note(snapshot: Snapshot) -> bytes:
    return snapshot.key.encode(errors="surrogatepass")
