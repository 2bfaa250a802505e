"""Damage of every kind, in every object, is found and named."""

from __future__ import annotations

import tempfile

import pytest

from snaplib.errors import NoSuchSnapshot, SnapshotDamaged
from snaplib.store import Store
from snaplib.testing.snapshots import sample_snapshot


@pytest.fixture
def snapshot(memory_store, tmp_path):
    return sample_snapshot(memory_store)


def names_of(memory):
    return [name for name in memory.objects if name.startswith("objects/")]


def test_whole(memory_store, snapshot, memory):
    """A snapshot as it was written is whole, and every byte of it was read."""
    steps = []
    result = memory_store.verify(snapshot.id, lambda done, total: steps.append((done, total)))

    assert result.ok
    assert result.checked_bytes == snapshot.stored_bytes
    assert steps[-1] == (snapshot.stored_bytes, snapshot.stored_bytes)
    assert sum(len(memory.objects[name]) for name in names_of(memory)) == snapshot.stored_bytes
    assert len(names_of(memory)) >= 5


def test_flipped_bits(memory_store, snapshot, memory):
    """One bit anywhere is found, in the right object, and for segments near it."""
    for name in names_of(memory):
        content = memory.objects[name]
        for at in range(0, len(content), max(1, len(content) // 23)):
            content[at] ^= 16
            findings = memory_store.verify(snapshot.id).findings
            content[at] ^= 16
            assert {finding.object for finding in findings} == {name}, (name, at)
            if "segment" in name:
                assert findings[0].offset <= at < findings[0].offset + (1 << 16)


def test_cut_short_and_long(memory_store, snapshot, memory):
    """A missing end is found, and so is one too many."""
    for name in names_of(memory):
        whole = bytes(memory.objects[name])
        for content in (
            whole[:-1],
            whole[: len(whole) // 2],
            b"",
            whole + b"x",
            whole + bytes(5000),
        ):
            memory.objects[name] = bytearray(content)
            findings = memory_store.verify(snapshot.id).findings
            assert {finding.object for finding in findings} == {name}
        memory.objects[name] = bytearray(whole)
    assert memory_store.verify(snapshot.id).ok


def test_missing(memory_store, snapshot, memory):
    """An object that is not there is named."""
    for name in names_of(memory):
        whole = memory.objects.pop(name)
        findings = memory_store.verify(snapshot.id).findings
        memory.objects[name] = whole
        assert [(finding.object, finding.problem) for finding in findings] == [(name, "is missing")]


def test_damaged_manifest(memory_store, snapshot, memory):
    """A damaged manifest is found; the others are still listed, by who asks for that."""
    other = memory_store.begin("other").commit()
    name = f"manifests/key/{snapshot.id}.json"
    memory.objects[name][30] ^= 1

    result = memory_store.verify(snapshot.id)
    assert [finding.object for finding in result.findings] == [name]
    with pytest.raises(SnapshotDamaged, match="manifests/key"):
        result.raise_if_damaged()
    with pytest.raises(SnapshotDamaged, match="manifests/key"):
        memory_store.snapshots()
    errors = []
    assert memory_store.snapshots(on_error=errors.append) == [other]
    assert len(errors) == 1


def read_all(store, snapshot_id, folder):
    with store.read(snapshot_id) as reader, tempfile.TemporaryFile() as file:
        for space in reader.pages.spaces():
            reader.pages.copy_to(space, file.fileno())
        reader.extract_directory(folder)
        reader.open_stream("streams-1").close()


def test_reading_damage(memory_store, snapshot, memory, tmp_path):
    """What is read is checked as well, not only what is verified."""
    for number, name in enumerate(names_of(memory)):
        content = memory.objects[name]
        folder = tmp_path / str(number)
        folder.mkdir()
        content[len(content) // 2] ^= 1
        with pytest.raises(SnapshotDamaged, match=name):
            read_all(memory_store, snapshot.id, folder)
        content[len(content) // 2] ^= 1


def test_unknown(memory_store):
    """A snapshot that does not exist cannot be checked."""
    with pytest.raises(NoSuchSnapshot):
        memory_store.verify("2026")


def test_damage_on_disk(tmp_path):
    """The same in a folder, where frames begin at multiples of a block."""
    store = Store.open(str(tmp_path / "store"), create=True)
    snapshot = sample_snapshot(store)
    assert store.verify(snapshot.id).ok
    segment = tmp_path / "store" / "objects" / snapshot.id / "segment-0000"
    with segment.open("r+b") as file:
        file.seek(5000)
        file.write(b"x")

    assert store.verify(snapshot.id).findings[0].object.endswith("segment-0000")
