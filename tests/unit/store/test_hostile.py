"""What lies in a store is not believed: whoever can write there must not get further than that."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import tracemalloc

import attrs
import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from snaplib.errors import SnapshotDamaged, StoreTooNew
from snaplib.store import PAGE_BYTES, Index, Snapshot, Store, archive, codec, names
from snaplib.store.codec import zstd
from snaplib.store.index import FRAME, RUN
from snaplib.store.index_format import index_from_bytes, index_to_bytes
from snaplib.testing.memories import SMALL
from snaplib.testing.snapshots import NOISE, SAMPLE_TASK, feed, sample_snapshot
from snaplib.testing.stores import MemoryBackend


def signed(fields):
    """A manifest with the right checksum, whatever it says."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    whole = {**fields, "xxh3": xxhash.xxh3_64_hexdigest(text.encode())}
    return json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


@pytest.fixture(scope="module")
def honest():
    made = sample_snapshot(Store.over(MemoryBackend(), create=True))
    return json.loads(json.dumps(made.to_dict()))


@pytest.mark.parametrize(
    "lie",
    [
        {"id": "../../etc"},
        {"id": 5},
        {"objects": {"../x": {"size_bytes": 1, "blake3": "a"}}},
        {"objects": {"/etc/passwd": {"size_bytes": 1, "blake3": "a"}}},
        {"objects": {"index": {"size_bytes": -1, "blake3": "a"}}},
        {"objects": {"index": {"size_bytes": "1", "blake3": "a"}}},
        {"objects": []},
        {"segments": [{"owner": "../..", "name": "x", "size_bytes": 1}]},
        {"segments": [{"owner": 1, "name": "x", "size_bytes": 1}]},
        {"segments": [{"owner": "20261123T221530.000000-3fa9c1", "name": "..", "size_bytes": 1}]},
        {"segments": [{"owner": "20261123T221530.000000-3fa9c1", "name": "a/b", "size_bytes": 1}]},
        {"segments": 7},
    ],
)
def test_manifests_that_lie(honest, lie):
    """Names that lead elsewhere, and sizes that cannot be, are refused though the checksum is right."""
    assert Snapshot.from_json(signed(honest)).id == honest["id"]
    with pytest.raises(SnapshotDamaged):
        Snapshot.from_json(signed({**honest, **lie}))


@given(st.data())
@settings(max_examples=300)
def test_any_manifest(data):
    """Whatever the bytes are, the answer is a snapshot or that it is none."""
    made = sample_manifest()
    content = bytearray(made)
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    with pytest.raises((SnapshotDamaged, StoreTooNew)):
        Snapshot.from_json(bytes(content) if bytes(content) != made else b"")


def sample_manifest(found=[]):  # noqa: B006 - made once
    if not found:
        found.append(sample_snapshot(Store.over(MemoryBackend(), create=True)).to_json())
    return found[0]


def an_index():
    runs = np.array([(1, 4, 7, 0x1000, 8, 0), (1, 4, 7, 0x10000, 8, 8)], RUN)
    frames = np.array([(0, 0, 0, 16 * 4096, 16, 5)], FRAME)
    return Index.build(runs, frames)


@given(st.data())
@settings(max_examples=300)
def test_any_index(data):
    """Random headers with right checksums, random bodies: an index, or an error; nothing large is allocated."""
    content = bytearray(index_to_bytes(an_index()))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content[48:56] = struct.pack("<Q", xxhash.xxh3_64_intdigest(bytes(content[64:])))
        content[56:64] = struct.pack("<Q", xxhash.xxh3_64_intdigest(bytes(content[:56])))
    try:
        index = index_from_bytes(bytes(content))
    except (ValueError, StoreTooNew):
        return
    index.problems()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("pages", 0),
        ("pages", (1 << 64) - 1),
        ("pages", 1 << 52),
        ("pages", 9),
        ("position", (1 << 64) - 1),
        ("position", 17),
        ("vaddr", 0x1001),
        ("vaddr", (1 << 64) - 4096),
    ],
)
def test_runs_that_lie(column, value):
    """Sums that would overflow are not trusted either."""
    index = an_index()
    runs = index.runs.copy()
    runs[column][1] = value
    assert Index(runs, index.frames).problems()


@pytest.mark.parametrize(
    ("column", "value"), [("pages", 1 << 31), ("stored_bytes", 1 << 31), ("codec", 9)]
)
def test_frames_that_lie(column, value):
    index = an_index()
    frames = index.frames.copy()
    frames[column][0] = value
    assert Index(index.runs, frames).problems()


def with_counts(content, runs, frames=None):
    """A stored index whose header says something else, with the right checksum."""
    content = bytearray(content)
    content[16:24] = struct.pack("<Q", runs)
    if frames is not None:
        content[24:32] = struct.pack("<Q", frames)
    content[56:64] = struct.pack("<Q", xxhash.xxh3_64_intdigest(bytes(content[:56])))
    return bytes(content)


@pytest.mark.parametrize("rows", [1 << 40, 1 << 26, 1 << 21])
def test_counts_that_lie(rows):
    """A header that promises more entries than there can be does not make us allocate them."""
    stored = index_to_bytes(an_index())
    with pytest.raises(ValueError, match="more than there can be"):
        index_from_bytes(with_counts(stored, rows))
    with pytest.raises(ValueError, match="more than there can be"):
        index_from_bytes(with_counts(stored, 2, rows))


def test_a_body_that_grows_without_end():
    """Nor does a body that is what the header says, all of it the same row."""
    body = zstd.compress(bytes(40 << 21), 19)
    stored = index_to_bytes(an_index())[:64] + body
    stored = bytearray(with_counts(stored, 1 << 21, 0))
    stored[32:56] = struct.pack("<QQQ", 1, len(body), xxhash.xxh3_64_intdigest(body))
    assert len(stored) < 1 << 15
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="more than there can be"):
            index_from_bytes(with_counts(bytes(stored), 1 << 21, 0))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_an_index_of_more_pages_than_the_manifest_says():
    """Before it is decompressed where the header gives it away, and after that else."""
    stored = index_to_bytes(an_index())
    assert index_from_bytes(stored, 16).pages == 16
    with pytest.raises(ValueError, match="2 runs and 1 frames of 1 pages"):
        index_from_bytes(stored, 1)
    with pytest.raises(ValueError, match="16 pages instead of 17"):
        index_from_bytes(stored, 17)


@pytest.mark.parametrize("step", [1, 2])
def test_no_honest_index_is_taken_for_a_lie(step):
    """However regular it is: every page by itself, as close as can be, all frames alike."""
    count = np.arange(1 << 20, dtype=np.uint64)
    runs = np.zeros(len(count), RUN)
    runs["kind"], runs["flags"], runs["id"], runs["pages"] = 1, 4, 300, 1
    runs["vaddr"], runs["position"] = count * np.uint64(4096 * step) + np.uint64(1 << 46), count
    runs["flags"] += (count % np.uint64(2)).astype(np.uint32)
    frames = np.zeros(len(count) // 1024, FRAME)
    frames["codec"], frames["pages"] = 2, 1024
    stored = index_to_bytes(Index.build(runs, frames))
    assert len(index_from_bytes(stored, len(count)).runs) == len(count)
    assert len(count) * RUN.itemsize < 64 * len(stored) / 2


def packed(*members):
    """An archive of members that tarfile itself would think about twice."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            if kind == tarfile.REGTYPE:
                info.size = 4
            tar.addfile(info, io.BytesIO(b"evil") if kind == tarfile.REGTYPE else None)
    return io.BytesIO(zstd.compress(plain.getvalue()))


@pytest.mark.parametrize(
    "members",
    [
        [("../evil", tarfile.REGTYPE, "")],
        [("/evil", tarfile.REGTYPE, "")],
        [("a/../../evil", tarfile.REGTYPE, "")],
        [("link", tarfile.SYMTYPE, ".."), ("link/evil", tarfile.REGTYPE, "")],
        [("link", tarfile.SYMTYPE, "."), ("link/deep", tarfile.DIRTYPE, "")],
        [("evil", tarfile.LNKTYPE, "../outside")],
        [("evil", tarfile.CHRTYPE, "")],
        [("evil", tarfile.GNUTYPE_SPARSE, "")],
        [("link", tarfile.SYMTYPE, "/etc/passwd")],
        [("link", tarfile.SYMTYPE, "a/../../outside")],
    ],
)
def test_archives_that_reach_out(members, tmp_path):
    """Nothing is written outside of the folder."""
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ValueError, match="the archive has"):
        archive.unpack(packed(*members), folder)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_file_through_a_link(tmp_path):
    """A file does not go through a link of its name that came before."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "victim").write_text("good")
    members = [("x", tarfile.SYMTYPE, "victim"), ("x", tarfile.REGTYPE, "")]
    with pytest.raises(ValueError, match="exists"):
        archive.unpack(packed(*members), folder)
    assert (folder / "victim").read_text() == "good"


def bomb(*sizes):
    """An archive of zeros that is small, and says truly how large it will be."""
    output = io.BytesIO()
    with (
        zstd.ZstdFile(output, "w") as compressed,
        tarfile.open(fileobj=compressed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for number, size in enumerate(sizes):
            info = tarfile.TarInfo(f"file-{number}")
            info.size = size
            tar.addfile(info, io.BytesIO(bytes(size)))
    output.seek(0)
    return output


def test_archives_that_grow(tmp_path):
    """An archive unpacks to no more than it is allowed to, and is asked before anything is written."""
    with pytest.raises(archive.ArchiveTooLarge):
        archive.unpack(bomb(1 << 20, 32 << 20), tmp_path, (33 << 20) - 1)
    assert [path.name for path in tmp_path.iterdir()] == ["file-0"]
    (tmp_path / "file-0").unlink()
    assert archive.unpack(bomb(1 << 20, 32 << 20), tmp_path, 33 << 20) == 2


def test_headers_that_grow(tmp_path):
    """A name of 64 MiB is refused before it is in our memory."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 64 << 20
    content = zstd.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(64 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="kind or size"):
            archive.unpack(io.BytesIO(content), tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_a_frame_that_grows():
    """What decompresses to more than the index says is refused at that size, not at its own."""
    stored = zstd.compress(bytes(256 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="not one whole zstd frame"):
            codec.decode(codec.ZSTD, stored, 1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def incremental(store, key):
    """Two snapshots of a key, the second with segments of the first."""
    first = store.begin(key, SMALL)
    first.pages.run(SAMPLE_TASK, 0, 4, 4)
    feed(first.pages, NOISE[: 4 * PAGE_BYTES])
    snapshots = [first.commit()]
    with store.begin(key, SMALL, parent=first.as_parent()) as second:
        second.pages.hole(SAMPLE_TASK, 0, 4, 4)
        snapshots.append(second.commit())
    return snapshots


@pytest.mark.parametrize("encryption_key", [None, b"k" * 32])
@pytest.mark.parametrize("there", ["theirs", "removed"])
def test_segments_of_another_key(encryption_key, there):
    """A manifest that names what is another key's is refused, be its owner there or gone."""
    backend = MemoryBackend()
    store = Store.over(backend, create=True, encryption_key=encryption_key)
    theirs, later = incremental(store, "theirs")
    ours, _ = incremental(store, "ours")
    if there == "removed":
        store.remove(theirs.id)
    name = names.manifest_name("ours", ours.id)
    store.backend.delete(name)
    store.backend.put_new(name, attrs.evolve(ours, segments=later.segments).to_json())
    with pytest.raises(SnapshotDamaged, match="of another key"):
        store.read(ours.id)
    assert "of another key" in store.verify(ours.id).findings[0].problem
    # Nor does its removal harm them.
    store.remove(ours.id)
    assert store.verify(later.id).ok
    with store.read(later.id) as reader:
        assert reader.pages.read(SAMPLE_TASK, 0, 4) == NOISE[: 4 * PAGE_BYTES]


def test_a_manifest_in_the_wrong_place():
    """A manifest is read only where its own snapshot's belongs: copied to another key or id it is none."""
    backend = MemoryBackend()
    store = Store.over(backend, create=True)
    made = sample_snapshot(store, "ours")
    other = names.new_id(made.created)
    for name in (names.manifest_name("theirs", made.id), names.manifest_name("ours", other)):
        backend.objects[name] = bytearray(made.to_json())
        with pytest.raises(SnapshotDamaged, match="another snapshot"):
            store.snapshots()
        del backend.objects[name]
    assert store.snapshots() == [made]
