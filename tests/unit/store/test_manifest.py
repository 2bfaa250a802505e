"""Manifests: strict to read."""

from __future__ import annotations

import json

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from snaplib.errors import SnapshotDamaged, StoreTooNew
from snaplib.store import Borrowed, Segment, Snapshot, StoredObject

texts = st.text(max_size=20)
free = st.dictionaries(
    texts, st.recursive(st.one_of(st.none(), texts, st.integers()), st.lists, max_leaves=5)
)


@given(texts, free, free, st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False)))
def test_round_trip(key, task, extra, timings):
    """A snapshot is the same after being written and read, to the byte."""
    objects = {"index": StoredObject(5, "ab"), "segment-0000": StoredObject(6)}
    segments = (Segment("20261123T221500.000000-000001", "segment-0003", 6),)
    snapshot = make(
        key=key, task=task, extra=extra, timings=timings, objects=objects, segments=segments
    )

    assert Snapshot.from_json(snapshot.to_json()) == snapshot
    assert Snapshot.from_json(snapshot.to_json()).to_json() == snapshot.to_json()


def make(**fields):
    return Snapshot(
        **{
            "id": "20261123T221530.000000-3fa9c1",
            "key": "key",
            "created_at": "2026-11-23T22:15:30+00:00",
            "snaplib_version": "1",
            "objects": {"index": StoredObject(5, "ab")},
            "raw_bytes": 1,
            "stored_bytes": 2,
            "pages": 3,
            **fields,
        }
    )


def test_every_changed_byte_is_found():
    """Neither flipped bits nor a missing end go unnoticed."""
    stored = make().to_json()
    for at in range(len(stored)):
        damaged = bytearray(stored)
        damaged[at] ^= 1 << at % 7
        with pytest.raises((SnapshotDamaged, StoreTooNew)):
            Snapshot.from_json(bytes(damaged))
        with pytest.raises(SnapshotDamaged):
            Snapshot.from_json(stored[:at])


def rewritten(**changes):
    """Return a manifest with other fields and the right checksum; None takes a field away."""
    fields = json.loads(make().to_json())
    del fields["xxh3"]
    fields.update(changes)
    fields = {name: value for name, value in fields.items() if value is not None}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return json.dumps({**fields, "xxh3": xxhash.xxh3_64_hexdigest(text.encode())}).encode()


def test_newer():
    """A manifest of a newer snaplib is not called damaged."""
    with pytest.raises(StoreTooNew, match="format 4"):
        Snapshot.from_json(rewritten(format=4))


def test_older():
    """A manifest from before there were segments of others names its own."""
    objects = {
        "index": {"size_bytes": 5, "blake3": "ab"},
        "segment-0000": {"size_bytes": 6, "blake3": None},
    }
    snapshot = Snapshot.from_json(
        rewritten(format=1, segments=None, parent="other", objects=objects)
    )
    assert snapshot.segments == (Segment(snapshot.id, "segment-0000", 6),)


def test_borrowed():
    """What is borrowed makes it a manifest that an older snaplib does not read, and so does not prune."""
    borrowed = (Borrowed("20261123T221500.000000-000001", "file-3", 7, "ab"),)
    for snapshot, form in ((make(), 2), (make(borrowed=borrowed), 3)):
        assert json.loads(snapshot.to_json())["format"] == form
        assert Snapshot.from_json(snapshot.to_json()) == snapshot
    assert make(borrowed=borrowed).owners == {"20261123T221500.000000-000001"}


def test_missing_field():
    """A field that is missing is named."""
    with pytest.raises(SnapshotDamaged, match="lacks pages"):
        Snapshot.from_json(rewritten(pages=None))


@pytest.mark.parametrize(
    "changes",
    [
        {"objects": []},
        {"objects": {"index": 5}},
        {"objects": {"index": {}}},
        {"segments": [5]},
        {"segments": [{"owner": "x"}]},
        {"format": 3},
        {"format": 3, "borrowed": [{"owner": "x"}]},
        {"format": "1"},
    ],
)
def test_wrong_shape(changes):
    """What has a checksum and still no sense is damaged."""
    with pytest.raises(SnapshotDamaged):
        Snapshot.from_json(rewritten(**changes))
