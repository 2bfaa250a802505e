"""Encrypted stores: nothing shows, nothing can be exchanged, and the wrong key is told."""

from __future__ import annotations

import base64
import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaplib.cli import main
from snaplib.errors import EncryptionKeyError, NotAStore, SnapshotDamaged, StoreTooNew
from snaplib.store import Store
from snaplib.store.sealed import Seal, SealedBackend, read_key
from snaplib.store.sealed.objects import CHUNK_BYTES, SealedReader, open_whole, seal_whole
from snaplib.testing.snapshots import NOISE, SAMPLE_SHARED, SAMPLE_TASK, sample_snapshot
from snaplib.testing.stores import MemoryBackend

KEY = bytes(range(32))


@pytest.fixture
def sealed(memory, clock):
    return Store.over(memory, create=True, encryption_key=KEY, clock=clock)


def test_nothing_shows(tmp_path):
    """Neither the task's bytes nor its key and command are in the store, in contents or names."""
    store = Store.open(tmp_path / "store", encryption_key=KEY)
    snapshot = sample_snapshot(store, key="secret-project")
    store.mark_ended("secret-project", 0)
    everything = b""
    for path in (tmp_path / "store").rglob("*"):
        everything += str(path).encode()
        everything += path.read_bytes() if path.is_file() else b""
    for word in (b"secret-project", b"sleep", b"saidsaid", b"core", NOISE[:16], NOISE[-4096:-4080]):
        assert word not in everything
    assert bytes(range(64)) not in everything
    again = Store.open(tmp_path / "store", encryption_key=KEY)
    assert again.snapshots("secret-project") == [snapshot]
    assert again.latest("secret-project") is None
    assert again.ended("secret-project").exit_code == 0


def test_what_comes_back(tmp_path):
    """An encrypted snapshot reads as any other, and every byte of it can be checked."""
    plain = sample_snapshot(Store.open(tmp_path / "plain"))
    store = Store.open(tmp_path / "store", encryption_key=KEY)
    snapshot = sample_snapshot(store)
    assert store.verify(snapshot.id).findings == ()
    with store.read(snapshot.id) as ours, Store.open(tmp_path / "plain").read(plain.id) as theirs:
        for space in (SAMPLE_TASK, SAMPLE_SHARED):
            for entry in ours.pages.entries(space).tolist():
                vaddr, pages = entry[0], entry[1]
                assert ours.pages.read(space, vaddr, pages) == theirs.pages.read(
                    space, vaddr, pages
                )
        with ours.open_stream("streams-1") as stream:
            assert stream.read() == b"said" * 10
        (tmp_path / "images").mkdir()
        ours.extract_directory(tmp_path / "images")
    assert (tmp_path / "images" / "core-4.img").read_bytes() == b"core" * 400
    store.remove(snapshot.id)
    assert not list((tmp_path / "store" / "objects").iterdir())


def test_keys_that_do_not_fit(memory, clock):
    """A wrong key, a missing one and one too many are each one clear line."""
    Store.over(memory, create=True, encryption_key=KEY, clock=clock)
    with pytest.raises(EncryptionKeyError, match="not the one of"):
        Store.over(memory, encryption_key=bytes(32))
    with pytest.raises(EncryptionKeyError, match="is encrypted, and no key was given"):
        Store.over(memory)
    plain = MemoryBackend()
    Store.over(plain, create=True)
    with pytest.raises(EncryptionKeyError, match="is not encrypted") as caught:
        Store.over(plain, encryption_key=KEY)
    assert "\n" not in str(caught.value)


def test_a_mark_of_another_kind(memory):
    """A newer store, and a mark that is not ours."""
    memory.put_new("snaplib-store.json", b'{"format": 3}')
    with pytest.raises(StoreTooNew):
        Store.over(memory, encryption_key=KEY)
    memory.objects["snaplib-store.json"] = bytearray(b'{"format": 2, "encryption": {"salt": 1}}')
    with pytest.raises(NotAStore):
        Store.over(memory, encryption_key=KEY)


def test_every_change_is_noticed(sealed, memory):
    """Of bytes anywhere in a snapshot, one is changed at a time."""
    snapshot = sample_snapshot(sealed)
    random.seed(23)
    for name in [name for name in memory.objects if name != "snaplib-store.json"]:
        content = memory.objects[name]
        places = {0, 11, 12, len(content) - 1, *random.sample(range(len(content)), 12)}
        for place in places:
            content[place] ^= 0x40
            assert not sealed.verify(snapshot.id).ok, (name, place)
            content[place] ^= 0x40
        cut = content.pop()
        assert not sealed.verify(snapshot.id).ok, name
        content.append(cut)
    assert sealed.verify(snapshot.id).ok


def test_nothing_can_be_exchanged(sealed, memory):
    """Two objects, two snapshots' segments, or two frames: each is of its place."""
    one, other = sample_snapshot(sealed), sample_snapshot(sealed)
    for name in ("segment-0000", "images", "index", "streams-1"):
        first, second = f"objects/{one.id}/{name}", f"objects/{other.id}/{name}"
        objects = memory.objects
        objects[first], objects[second] = objects[second], objects[first]
        assert not sealed.verify(one.id).ok, name
        assert not sealed.verify(other.id).ok, name
        objects[first], objects[second] = objects[second], objects[first]
    with sealed.read(one.id) as reader:
        frames = reader.pages.index.frames
        same = [
            row
            for row in frames.tolist()
            if row[3] == 1 << 16 and row[0] == frames["segment"].max()
        ]
    if len(same) >= 2:
        content = memory.objects[f"objects/{one.id}/segment-{same[0][0]:04d}"]
        size = (1 << 16) + 28
        a, b = same[0][2], same[1][2]
        content[a : a + size], content[b : b + size] = content[b : b + size], content[a : a + size]
        assert not sealed.verify(one.id).ok


@given(st.integers(0, 3 * CHUNK_BYTES), st.data())
def test_parts_of_objects(size, data):
    """Any part of an object of any size reads as it was."""
    seal = Seal(KEY, b"salt").object("x")
    content = random.Random(size).randbytes(size)
    stored = seal_whole(seal, content)
    assert open_whole(seal, stored) == content
    backend = MemoryBackend()
    backend.put_new("x", stored)
    reader = SealedReader(backend.open("x"), seal)
    assert reader.size_bytes == size
    offset = data.draw(st.integers(0, size + 10))
    length = data.draw(st.integers(0, size + 10))
    assert reader.read(offset, length) == content[offset : offset + length]
    with pytest.raises(SnapshotDamaged):
        open_whole(seal, stored[: max(1, len(stored) - 1)])
    if size > CHUNK_BYTES:
        with pytest.raises(SnapshotDamaged):
            open_whole(seal, stored[: CHUNK_BYTES + 28])


def test_nonces_are_new_each_time():
    """The same bytes, in the same place, never look the same."""
    seal = Seal(KEY, b"salt").object("x")
    assert len({seal.close(b"same", b"") for _ in range(23)}) == 23


def test_where_keys_come_from(tmp_path, monkeypatch):
    """A file, a variable, a command; bytes, hexadecimal, base64."""
    path = tmp_path / "key"
    path.write_bytes(KEY)
    assert read_key(f"file:{path}") == KEY
    path.write_text(KEY.hex() + "\n")
    assert read_key(f"file:{path}") == KEY
    monkeypatch.setenv("MY_KEY", base64.b64encode(KEY).decode())
    assert read_key("env:MY_KEY") == KEY
    assert read_key(f"command:cat '{path}'") == KEY


@pytest.mark.parametrize(
    "source",
    ["", "hunter2", "file:", "file:/none", "env:NOT_SET_AT_ALL", "command:false", "command:/none"],
)
def test_sources_that_give_no_key(source):
    """Each is told, and what may be the key itself is not repeated."""
    with pytest.raises(EncryptionKeyError) as caught:
        read_key(source)
    assert "hunter2" not in str(caught.value)


def test_commands(tmp_path, capsys, monkeypatch):
    """Every command that opens a store takes the source of the key."""
    monkeypatch.setenv("SNAPLIB_ENCRYPTION_KEY", "env:MY_KEY")
    monkeypatch.setenv("MY_KEY", KEY.hex())
    store = Store.open(tmp_path / "store")
    snapshot = sample_snapshot(store)
    assert isinstance(store.backend, SealedBackend)
    assert main(["verify", "--store", store.url, snapshot.id]) == 0
    monkeypatch.setenv("MY_KEY", bytes(32).hex())
    assert main(["verify", "--store", store.url, snapshot.id]) == 2
    assert "not the one of" in capsys.readouterr().err
    (tmp_path / "key").write_bytes(KEY)
    source = f"file:{tmp_path / 'key'}"
    assert main(["snapshots", "--store", store.url, "--encryption-key", source]) == 0
    assert os.environ["SNAPLIB_ENCRYPTION_KEY"] == source
