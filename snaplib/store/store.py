"""The store: what snapshots there are, and how to write one more."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from typing import TYPE_CHECKING

import attrs

from snaplib.errors import NoSuchSnapshot, NotAStore, SnapshotDamaged, StoreTooNew
from snaplib.store import names
from snaplib.store.address import open_backend
from snaplib.store.manifest import Snapshot
from snaplib.store.saved import SnapshotReader
from snaplib.store.snapshot import SnapshotWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from snaplib.store.backend import Backend
    from snaplib.store.pagelog import PageLogOptions

__all__ = ["End", "Store"]

#: The object that makes a folder a store.
_MARK = "snaplib-store.json"
#: The newest layout this snaplib knows.
_FORMAT = 1


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _strings(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


@attrs.frozen
class End:
    """The note that the task of a key has ended, and its snapshots are of the past.

    Attributes:
        ended_at: When: UTC, ISO 8601.
        exit_code: Its exit status; None where a signal ended it.
        signal: The signal that ended it.
        snapshots: The ids of the snapshots there were.
    """

    ended_at: str
    exit_code: int | None
    signal: int | None
    snapshots: tuple[str, ...] = attrs.field(converter=_strings)


class Store:
    """Keeps snapshots.  Get one from `open`.

    Args:
        backend: Where its bytes are.
        clock: Tells the time, with its zone.
    """

    def __init__(self, backend: Backend, clock: Callable[[], dt.datetime] = _now) -> None:
        self._backend = backend
        self._clock = clock

    @classmethod
    def open(cls, url: str, *, create: bool = False) -> Store:
        """Open a store.

        Args:
            url: A folder: its path or ``file://`` URL.
            create: Make the folder a store if it is empty or does not exist.

        Raises:
            UsageError: The address means nothing to us.
            NotAStore: There is no store there, and something else or ``create`` is false.
            StoreTooNew: A newer snaplib made it.
            StoreReadOnly: It is to be made and cannot be.
        """
        return cls.over(open_backend(url), create=create)

    @classmethod
    def over(
        cls,
        backend: Backend,
        *,
        create: bool = False,
        clock: Callable[[], dt.datetime] = _now,
    ) -> Store:
        """Open a store in a backend, as `open` does.

        Args:
            backend: The backend.
            create: Make it a store if it is empty.
            clock: Tells the time, with its zone.
        """
        try:
            mark = backend.get(_MARK)
        except FileNotFoundError:
            empty = next(iter(backend.names("")), None) is None
            if not create or not empty:
                raise NotAStore(f"{backend.url} is not a snaplib store") from None
            mark = json.dumps({"format": _FORMAT}).encode()
            with contextlib.suppress(FileExistsError):
                backend.put_new(_MARK, mark)
                return cls(backend, clock)
            mark = backend.get(_MARK)
        try:
            found = json.loads(mark)["format"]
        except (ValueError, KeyError, TypeError):
            found = None
        if not isinstance(found, int):
            raise NotAStore(f"{backend.url}: {_MARK} is not what snaplib writes")
        if found > _FORMAT:
            raise StoreTooNew(f"{backend.url} is of format {found}; this snaplib knows {_FORMAT}")
        return cls(backend, clock)

    @property
    def url(self) -> str:
        """The address."""
        return self._backend.url

    @property
    def backend(self) -> Backend:
        """Where its bytes are."""
        return self._backend

    def free_bytes(self) -> int | None:
        """Return how much more can be stored; None where there is no such limit."""
        return self._backend.free_bytes()

    def begin(self, key: str, options: PageLogOptions | None = None) -> SnapshotWriter:
        """Begin a new snapshot, after cleaning up what dead writers left.

        Args:
            key: Which task it is of.
            options: How to write pages.

        Raises:
            StoreError: The store cannot be written to.
        """
        self.sweep()
        existing = max(self._ids(names.manifest_folder(key)), default=None)
        now = self._clock()
        return SnapshotWriter(self._backend, key, names.new_id(now, existing), now, options)

    def snapshots(self, key: str | None = None) -> list[Snapshot]:
        """Return the snapshots there are, newest first.

        Args:
            key: Only those of this key.

        Raises:
            SnapshotDamaged: A manifest is not what was written.
            StoreTooNew: A newer snaplib wrote one.
        """
        folder = names.MANIFESTS if key is None else names.manifest_folder(key)
        found = sorted(self._manifests(folder).items(), reverse=True)
        snapshots = (self._load(name) for _, name in found)
        return [snapshot for snapshot in snapshots if snapshot is not None]

    def latest(self, key: str) -> Snapshot | None:
        """Return the newest snapshot of a key that its task can go on from.

        Those that were there when a task of this key ended do not count: the next run of it begins
        anew.
        """
        ended = {snapshot_id for end in self._ends(key) for snapshot_id in end.snapshots}
        for snapshot_id in sorted(self._ids(names.manifest_folder(key)) - ended, reverse=True):
            snapshot = self._load(names.manifest_name(key, snapshot_id))
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
        found = {
            known: name
            for known, name in self._manifests(names.MANIFESTS).items()
            if known.startswith(snapshot_id)
        }
        found = {snapshot_id: found[snapshot_id]} if snapshot_id in found else found
        if not snapshot_id or not found:
            raise NoSuchSnapshot(f"{self.url} has no snapshot {snapshot_id!r}")
        if len(found) > 1:
            raise NoSuchSnapshot(
                f"{len(found)} snapshots in {self.url} begin with {snapshot_id!r}",
                hint="give more of the id",
            )
        snapshot = self._load(next(iter(found.values())))
        if snapshot is None:
            raise NoSuchSnapshot(f"{self.url} has no snapshot {snapshot_id!r}")
        return snapshot

    def read(self, snapshot_id: str) -> SnapshotReader:
        """Open a snapshot for reading.

        Raises:
            NoSuchSnapshot: There is none of this id.
        """
        return SnapshotReader(self._backend, self.get(snapshot_id))

    def remove(self, snapshot_id: str) -> None:
        """Remove a snapshot: at once for whoever looks, and then its bytes.

        Raises:
            NoSuchSnapshot: There is none of this id.
        """
        snapshot = self.get(snapshot_id)
        self._backend.delete(names.manifest_name(snapshot.key, snapshot.id))
        self._backend.delete_folder(names.object_folder(snapshot.id))

    def sweep(self) -> list[str]:
        """Remove what dead writers left, and return the ids of the snapshots that never were."""
        return self._backend.delete_abandoned(
            names.OBJECTS, keep=lambda snapshot_id: snapshot_id in self._ids(names.MANIFESTS)
        )

    def mark_ended(self, key: str, exit_code: int | None, signal: int | None = None) -> None:
        """Note that the task of a key has ended, so that `latest` forgets the snapshots there are
        of it.

        Args:
            key: The key.
            exit_code: The task's exit status; None where a signal ended it.
            signal: The signal that ended it.
        """
        before = list(self._backend.names(names.ends_folder(key)))
        now = self._clock().astimezone(dt.UTC)
        gone = tuple(sorted(self._ids(names.manifest_folder(key))))
        end = End(now.isoformat(), exit_code, signal, gone)
        name = f"{names.ends_folder(key)}/{names.new_id(now, _newest(before))}.json"
        self._backend.put_new(name, json.dumps(attrs.asdict(end)).encode())
        for older in before:
            # What they name is named by the new one too, as far as it is still there.
            self._backend.delete(older)

    def ended(self, key: str) -> End | None:
        """Return the last note that a task of this key has ended."""
        return max(self._ends(key), key=lambda end: end.ended_at, default=None)

    def _ends(self, key: str) -> Iterator[End]:
        for name in sorted(self._backend.names(names.ends_folder(key))):
            with contextlib.suppress(FileNotFoundError):
                try:
                    yield End(**json.loads(self._backend.get(name)))
                except (ValueError, TypeError) as error:
                    raise SnapshotDamaged(f"{name} is not what was written: {error}") from error

    def _manifests(self, folder: str) -> dict[str, str]:
        """Return the names of manifests by snapshot id."""
        return {
            name.rpartition("/")[2].removesuffix(".json"): name
            for name in self._backend.names(folder)
            if name.endswith(".json")
        }

    def _ids(self, folder: str) -> set[str]:
        return set(self._manifests(folder))

    def _load(self, name: str) -> Snapshot | None:
        """Return a manifest's snapshot; None if it has been removed meanwhile."""
        try:
            data = self._backend.get(name)
        except FileNotFoundError:
            return None
        return Snapshot.from_json(data, name)


def _newest(ends: list[str]) -> str | None:
    return max((name.rpartition("/")[2].removesuffix(".json") for name in ends), default=None)
