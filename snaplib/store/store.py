"""The store: what snapshots there are, and how to write one more."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
from typing import TYPE_CHECKING

from snaplib.arguments import functions, number, whole
from snaplib.errors import (
    NoSuchSnapshot,
    SnapshotDamaged,
    StoreError,
    StoreUnreachable,
    WrongType,
)
from snaplib.store import names
from snaplib.store.address import open_backend
from snaplib.store.catalog import Catalog
from snaplib.store.ends import End, Ends
from snaplib.store.journal import Journal, RunRecord, all_runs
from snaplib.store.manifest import Snapshot
from snaplib.store.mark import unsealed
from snaplib.store.references import References
from snaplib.store.saved import SnapshotReader
from snaplib.store.sealed import SealedBackend, check_key, read_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from snaplib.store.backend import Backend
    from snaplib.store.logoptions import PageLogOptions
    from snaplib.store.parent import Parent
    from snaplib.store.snapshot import SnapshotWriter
    from snaplib.store.verify import Verification

__all__ = ["Store"]


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Store:
    """Keeps snapshots.  Get one from `open`.

    Args:
        backend: Where its bytes are.
        clock: Tells the time, with its zone.
    """

    def __init__(self, backend: Backend, clock: Callable[[], dt.datetime] = _now) -> None:
        self._backend = backend
        self._clock = clock
        self._catalog = Catalog(backend)
        self._distrusted: set[str] = set()

    @classmethod
    def open(
        cls,
        url: str | os.PathLike[str],
        *,
        create: bool = True,
        encryption_key: str | bytes | None = None,
    ) -> Store:
        """Open a store.

        Args:
            url: A folder, its path or ``file://`` URL; or ``s3://``, ``gs://`` or ``az://`` with bucket and folder;
                or ``memory://``, which is this process's own and ends with it.
            create: Make the folder a store if it is empty or does not exist; false where it is only
                to be read.
            encryption_key: The key of an encrypted store: 32 bytes, or where they are, ``file:PATH``,
                ``env:NAME`` or ``command:COMMAND``; by default what ``$SNAPLIB_ENCRYPTION_KEY`` says,
                and if it says nothing, none.  A new store is encrypted if there is one.

        Raises:
            EncryptionKeyError: The store is encrypted and the key is missing or another's, or there
                is a key and the store is not encrypted.
            UsageError: The address means nothing to us.
            NotAStore: There is no store there, and something else or ``create`` is false.
            StoreTooNew: A newer snaplib made it.
            StoreReadOnly: It is to be made and cannot be.
        """
        try:
            address = os.fsdecode(url)
        except TypeError:
            raise WrongType(f"{url!r} is no address of a store") from None
        key = encryption_key
        if key is None:
            key = os.environ.get("SNAPLIB_ENCRYPTION_KEY") or None
        if isinstance(key, str):
            key = read_key(key)
        return cls.over(open_backend(address), create=create, encryption_key=key)

    @classmethod
    def over(
        cls,
        backend: Backend,
        *,
        create: bool = False,
        encryption_key: bytes | None = None,
        clock: Callable[[], dt.datetime] = _now,
    ) -> Store:
        """Open a store in a backend, as `open` does.

        Args:
            backend: The backend.
            create: Make it a store if it is empty.
            encryption_key: The key of an encrypted store, 32 bytes.
            clock: Tells the time, with its zone.
        """
        if encryption_key is not None:
            check_key(encryption_key)
        return cls(unsealed(backend, encryption_key, create=create), clock)

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    @property
    def url(self) -> str:
        """The address."""
        return self._backend.url

    @property
    def encryption_key(self) -> bytes | None:
        """The key it was opened with."""
        return self._backend.seal.key if isinstance(self._backend, SealedBackend) else None

    @property
    def address(self) -> str:
        """What opens it again, in another process too."""
        return self._backend.address

    @property
    def backend(self) -> Backend:
        """Where its bytes are."""
        return self._backend

    def free_bytes(self) -> int | None:
        """Return how much more can be stored; None where there is no such limit."""
        return self._backend.free_bytes()

    def begin(
        self,
        key: str,
        options: PageLogOptions | None = None,
        *,
        parent: Parent | None = None,
        find: bool = False,
    ) -> SnapshotWriter:
        """Begin a new snapshot, after cleaning up what dead writers left.

        Args:
            key: Which task it is of.
            options: How to write pages.
            parent: What it may be incremental to: of an earlier snapshot of the same key, from
                `SnapshotWriter.as_parent`.
            find: Find pages in the newest snapshot of the key that are the same there, and do not store those again;
                not if it is distrusted.

        Raises:
            NoSuchSnapshot: The parent has been removed.
            StoreError: The store cannot be written to.
        """
        self.sweep()
        existing = max(self._catalog.names(key), default=None)
        if find and parent is None and existing is not None:
            lent = self._lent(existing) if existing not in self._distrusted else None
            # If it is removed meanwhile, there is nothing to be found.
            with contextlib.suppress(NoSuchSnapshot):
                return self._begun(key, options, existing, lent)
        return self._begun(key, options, existing, parent)

    def distrust(self, snapshot_id: str) -> None:
        """Let no snapshot that is begun from now on have pages of one that could not be restored.

        Args:
            snapshot_id: That one's id.
        """
        self._distrusted.add(snapshot_id)

    def _begun(
        self, key: str, options: PageLogOptions | None, after: str | None, parent: Parent | None
    ) -> SnapshotWriter:
        from snaplib.store.snapshot import SnapshotWriter  # noqa: PLC0415  who reads does without

        now = self._clock()
        snapshot_id = names.new_id(now, after)
        return SnapshotWriter(self._backend, key, snapshot_id, now, options, parent=parent)

    def _lent(self, snapshot_id: str) -> Parent | None:
        """Return what a new snapshot may find in the newest; None if that cannot be read."""
        from snaplib.store.lending import lent_by  # noqa: PLC0415  with a writer only

        try:
            with self.read(snapshot_id) as reader:
                return lent_by(reader)
        except StoreUnreachable:
            raise
        except StoreError:
            return None

    def ids(self, key: str | None = None) -> list[str]:
        """Return the ids of the snapshots there are, newest first, without looking into them.

        Args:
            key: Only those of this key.
        """
        return sorted(self._catalog.names(key), reverse=True)

    def snapshots(
        self, key: str | None = None, on_error: Callable[[StoreError], None] | None = None
    ) -> list[Snapshot]:
        """Return the snapshots there are, newest first.

        Args:
            key: Only those of this key.
            on_error: Called for each whose manifest cannot be read, which is then left out; by
                default the error is raised.

        Raises:
            SnapshotDamaged: A manifest is not what was written.
            StoreTooNew: A newer snaplib wrote one.
        """
        found = []
        for _, name in sorted(self._catalog.names(key).items(), reverse=True):
            try:
                snapshot = self._catalog.load(name)
            except StoreError as error:
                if on_error is None:
                    raise
                on_error(error)
            else:
                found += [snapshot] if snapshot is not None else []
        return found

    def latest(self, key: str) -> Snapshot | None:
        """Return the newest snapshot of a key that its task can go on from.

        Those that were there when a task of this key ended do not count: the next run of it begins
        anew.
        """
        ended = Ends(self._backend, key).snapshots()
        for snapshot_id in sorted(self._catalog.names(key).keys() - ended, reverse=True):
            snapshot = self._catalog.load(names.manifest_name(key, snapshot_id))
            if snapshot is not None:
                return snapshot
        return None

    def get(self, snapshot_id: str) -> Snapshot:
        """Return a snapshot.

        Args:
            snapshot_id: Its id, or as much of its beginning as no other has.

        Raises:
            NoSuchSnapshot: There is none, or several begin so.
        """
        _, name = self._catalog.find(snapshot_id)
        snapshot = self._catalog.load(name)
        if snapshot is None:
            raise NoSuchSnapshot(f"{self.url} has no snapshot {snapshot_id!r}")
        return snapshot

    def read(self, snapshot_id: str) -> SnapshotReader:
        """Open a snapshot for reading.

        Raises:
            NoSuchSnapshot: There is none of this id.
            SnapshotDamaged: Its manifest names what is not its own.
        """
        snapshot = self.get(snapshot_id)
        self._catalog.refuse_strangers(snapshot)
        return SnapshotReader(self._backend, snapshot)

    def verify(
        self, snapshot_id: str, progress: Callable[[int, int], None] | None = None
    ) -> Verification:
        """Check every byte of a snapshot.

        Args:
            snapshot_id: Its id, or as much of its beginning as no other has.
            progress: Called with the bytes read so far and all there are to read.

        Raises:
            NoSuchSnapshot: There is none of this id.
            StoreTooNew: A newer snaplib wrote it.
        """
        from snaplib.store.verify import Finding, Verification, verify  # noqa: PLC0415  seldom needed

        whole_id, name = self._catalog.find(snapshot_id)
        try:
            snapshot = self.get(whole_id)
            self._catalog.refuse_strangers(snapshot)
        except SnapshotDamaged as error:
            # Without its manifest nothing else of it can be checked.
            return Verification(whole_id, 0, (Finding(name, None, error.message),))
        return verify(self._backend, snapshot, progress)

    def remove(self, snapshot_id: str) -> None:
        """Remove a snapshot: at once for whoever looks, and then those of its bytes that no other
        snapshot refers to.

        Raises:
            NoSuchSnapshot: There is none of this id.
        """
        self._catalog.remove([self.get(snapshot_id)])

    def prune(
        self,
        key: str | None = None,
        *,
        keep: int = 0,
        older_than_s: float = 0.0,
        dry_run: bool = False,
        on_error: Callable[[StoreError], None] | None = None,
    ) -> list[Snapshot]:
        """Remove snapshots that neither their number nor their age spares.

        Bytes that other snapshots refer to stay.  What dead writers left goes as well.

        Args:
            key: Only those of this key.
            keep: How many of each key's newest to spare, whatever their age.
            older_than_s: Spare what is younger.
            dry_run: Only tell.
            on_error: Called for each manifest that cannot be read, which is then left alone; by
                default the error is raised before anything is removed.

        Returns:
            Those removed, newest first.

        Raises:
            UsageError: A negative number, or none.
            SnapshotDamaged: A manifest cannot be read.
        """
        whole("keep", keep, least=0)
        number("older_than_s", older_than_s, least=0.0)
        functions(on_error=on_error)
        try:
            before = self._clock() - dt.timedelta(seconds=older_than_s)
        except OverflowError:
            # Older than time itself: nothing is.
            return []
        seen: dict[str, int] = {}
        removed = []
        for snapshot in self.snapshots(key, on_error):
            seen[snapshot.key] = seen.get(snapshot.key, 0) + 1
            if seen[snapshot.key] > keep and snapshot.created <= before:
                removed.append(snapshot)
        if not dry_run:
            self._catalog.remove(removed)
            self.sweep()
        return removed

    def sweep(self) -> list[str]:
        """Remove what dead writers and removed snapshots left, and return the ids of the folders
        that are gone.

        Raises:
            SnapshotDamaged: A manifest cannot be read, so that nobody knows what it refers to.
        """
        gone: list[str] = []
        while True:
            references = References(self._backend)
            more = self._backend.delete_abandoned(names.OBJECTS, references.keep)
            references.delete_rest()
            gone += more
            if not more:
                return gone
            # What a dead writer referred to may be debris now.

    def mark_ended(self, key: str, exit_code: int | None, signal: int | None = None) -> None:
        """Note that the task of a key has ended, so that `latest` forgets the snapshots there are
        of it.

        Args:
            key: The key.
            exit_code: The task's exit status; None where a signal ended it.
            signal: The signal that ended it.
        """
        Ends(self._backend, key).add(exit_code, signal, tuple(self.ids(key)), self._clock())

    def ended(self, key: str) -> End | None:
        """Return the last note that a task of this key has ended."""
        return Ends(self._backend, key).last()

    def journal(self, key: str) -> Journal:
        """Return the journal of the runs of a key."""
        return Journal(self._backend, key, self._clock)

    def runs(self) -> list[RunRecord]:
        """Return the runs of all keys, the oldest first.

        Raises:
            SnapshotDamaged: One is not what was written.
        """
        return all_runs(self._backend)
