"""The manifest of a snapshot: the one object that makes all its others a snapshot."""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import TYPE_CHECKING, Any, Literal

import attrs
import xxhash

from snaplib.errors import SnapshotDamaged, StoreTooNew

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FORMAT", "Borrowed", "Segment", "Snapshot", "StoredObject"]

#: The newest format of manifests this snaplib knows.
FORMAT = 3
#: Where nothing is borrowed an older snaplib can read it as well.
_WITHOUT_BORROWED = 2
#: Before that no snapshot had segments of others.
_WITHOUT_SEGMENTS = 1

#: What ids and names of objects are made of: they become parts of paths.
_ID = re.compile(r"\d{8}T\d{6}\.\d{6}-[0-9a-f]{6}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@attrs.frozen
class StoredObject:
    """An object of a snapshot.

    Attributes:
        size_bytes: Its size.
        blake3: Its hash, hexadecimal; None for segments, of which the index has a checksum a frame.
    """

    size_bytes: int
    blake3: str | None = None


@attrs.frozen
class Segment:
    """A segment that a snapshot has pages in.

    Attributes:
        owner: The id of the snapshot that wrote it, and in whose folder it is.
        name: Its name there.
        size_bytes: Its size.
    """

    owner: str
    name: str
    size_bytes: int


@attrs.frozen
class Borrowed:
    """An object of an earlier snapshot, other than a segment, that this one needs too.

    Attributes:
        owner: The id of the snapshot in whose folder it is.
        name: Its name there.
        size_bytes: Its size.
        blake3: Its hash, hexadecimal.
    """

    owner: str
    name: str
    size_bytes: int
    blake3: str

    @property
    def reference(self) -> str:
        """What names it within the snapshot that needs it."""
        return f"{self.owner}/{self.name}"


@attrs.frozen
class Snapshot:
    """What a manifest says of its snapshot.

    Attributes:
        id: Its id; they sort by time.
        key: Which task it is of, in the words of whoever took it.
        created_at: When it was taken: UTC, ISO 8601.
        snaplib_version: Which snaplib took it.
        objects: Its own objects by name.
        raw_bytes: The bytes of the pages in it.
        stored_bytes: The bytes of its own objects: what it has added to the store.
        pages: How many pages are in it.
        segments: Where its pages are, its own segments and those of earlier snapshots; the index
            names them by their place in this list.
        borrowed: The other objects of earlier snapshots that it needs.
        kind: ``full``, or ``incremental`` to its parent.
        parent: The id of the snapshot it is incremental to.
        task: ``command``, ``cwd``, ``root_ns_pid``, ``members``, and what else is known of the
            task.
        host: ``kernel``, ``arch``, ``criu_version``, and what else is known of the host.
        streams: The task's standard streams; what it means is up to whoever takes and restores.
        timings: Seconds by name; ``frozen_s`` is how long the task stood still.
        extra: Anything else.
    """

    id: str
    key: str
    created_at: str
    snaplib_version: str
    objects: Mapping[str, StoredObject]
    raw_bytes: int
    stored_bytes: int
    pages: int
    segments: tuple[Segment, ...] = ()
    borrowed: tuple[Borrowed, ...] = ()
    kind: Literal["full", "incremental"] = "full"
    parent: str | None = None
    task: Mapping[str, Any] = attrs.field(factory=dict)
    host: Mapping[str, Any] = attrs.field(factory=dict)
    streams: Mapping[str, Any] = attrs.field(factory=dict)
    timings: Mapping[str, float] = attrs.field(factory=dict)
    extra: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def created(self) -> dt.datetime:
        """When it was taken, with its zone."""
        return dt.datetime.fromisoformat(self.created_at)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as they are in JSON."""
        fields = attrs.asdict(self)
        if self.borrowed:
            return {"format": FORMAT, **fields}
        del fields["borrowed"]
        return {"format": _WITHOUT_BORROWED, **fields}

    @property
    def owners(self) -> frozenset[str]:
        """The ids of the earlier snapshots that something of it is in the folders of."""
        return frozenset({one.owner for one in self.needed} - {self.id})

    @property
    def needed(self) -> tuple[Segment | Borrowed, ...]:
        """What a manifest names that may be in other folders than its own."""
        return (*self.segments, *self.borrowed)

    def to_json(self) -> bytes:
        """Return the manifest: canonical JSON that ends with the checksum of the rest."""
        fields = self.to_dict()
        return _canonical({**fields, "xxh3": xxhash.xxh3_64_hexdigest(_canonical(fields))})

    @classmethod
    def from_json(cls, data: bytes, name: str = "manifest") -> Snapshot:
        """Return the snapshot of a manifest.

        Args:
            data: The manifest.
            name: Its name, for errors.

        Raises:
            StoreTooNew: A newer snaplib wrote it.
            SnapshotDamaged: It is not what was written.
        """
        try:
            fields = json.loads(data)
        except ValueError as error:
            raise SnapshotDamaged(f"{name} is not JSON: {error}") from error
        if not isinstance(fields, dict) or not isinstance(fields.get("format"), int):
            raise SnapshotDamaged(f"{name} has no format")
        if fields["format"] > FORMAT:
            raise StoreTooNew(
                f"{name} is of format {fields['format']}; this snaplib knows {FORMAT}"
            )
        checksum = fields.pop("xxh3", None)
        if checksum != xxhash.xxh3_64_hexdigest(_canonical(fields)):
            raise SnapshotDamaged(f"the checksum of {name} is wrong")
        if fields["format"] == _WITHOUT_SEGMENTS:
            fields["segments"] = _own_segments(fields)
        if fields["format"] <= _WITHOUT_BORROWED:
            fields["borrowed"] = []
        known = {field.name for field in attrs.fields(cls)}
        missing = known - fields.keys()
        if missing:
            raise SnapshotDamaged(f"{name} lacks {', '.join(sorted(missing))}")
        try:
            objects = {
                name: StoredObject(entry["size_bytes"], entry["blake3"])
                for name, entry in fields["objects"].items()
            }
            segments = tuple(Segment(**entry) for entry in fields["segments"])
            borrowed = tuple(Borrowed(**entry) for entry in fields["borrowed"])
        except (KeyError, TypeError, AttributeError) as error:
            raise SnapshotDamaged(f"{name} describes its objects wrongly") from error
        _check_names(fields["id"], objects, (*segments, *borrowed), name)
        for field in ("pages", "raw_bytes", "stored_bytes"):
            if not isinstance(fields[field], int) or fields[field] < 0:
                raise SnapshotDamaged(f"{name} says {field} {fields[field]!r}")
        named = {field: fields[field] for field in known}
        return cls(**{**named, "objects": objects, "segments": segments, "borrowed": borrowed})


def _own_segments(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the segments of a snapshot whose manifest has no list of them."""
    try:
        return [
            {"owner": fields["id"], "name": name, "size_bytes": entry["size_bytes"]}
            for name, entry in sorted(fields["objects"].items())
            if entry["blake3"] is None
        ]
    except (KeyError, TypeError, AttributeError):
        # Told by who looks at the objects.
        return []


def _check_names(
    snapshot_id: Any,
    objects: Mapping[str, StoredObject],
    others: tuple[Segment | Borrowed, ...],
    name: str,
) -> None:
    """Make sure that no name leads out of a snapshot's folder, and no size is negative.

    Raises:
        SnapshotDamaged: One does.
    """
    ids: list[Any] = [snapshot_id, *(other.owner for other in others)]
    for one in ids:
        if not isinstance(one, str) or not _ID.fullmatch(one):
            raise SnapshotDamaged(f"{name} names a snapshot that cannot be: {one!r}")
    inside: list[Any] = [*objects, *(other.name for other in others)]
    for one in inside:
        if not isinstance(one, str) or not _NAME.fullmatch(one):
            raise SnapshotDamaged(f"{name} names an object that cannot be: {one!r}")
    sizes: list[Any] = [stored.size_bytes for stored in objects.values()]
    sizes += [other.size_bytes for other in others]
    for size in sizes:
        if not isinstance(size, int) or size < 0:
            raise SnapshotDamaged(f"{name} has an object of {size!r} bytes")


def _canonical(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(
        fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()
