"""Each byte of a small snapshot, changed: found, and in the right object."""

from __future__ import annotations

import io

import pytest

from snaplib.store import PAGE_BYTES, PageLogOptions, Store
from snaplib.testing.snapshots import NOISE, feed
from snaplib.testing.snapshots import SAMPLE_TASK as TASK
from snaplib.testing.stores import MemoryBackend


@pytest.fixture(params=["plain", "encrypted"])
def small(request, tmp_path):
    """A store in memory with one snapshot that has a frame of each kind, and what else there can be."""
    memory = MemoryBackend()
    key = b"k" * 32 if request.param == "encrypted" else None
    store = Store.over(memory, create=True, encryption_key=key)
    # Whether a frame is tried would depend on who is quicker.
    options = PageLogOptions(frame_bytes=PAGE_BYTES, workers=1, codec="zstd")
    (tmp_path / "core-1.img").write_bytes(b"core")
    with store.begin("key", options) as writer:
        writer.pages.run(TASK, 0x400000, 3, 4)
        feed(writer.pages, NOISE[:PAGE_BYTES] + bytes(range(64)) * 64 + bytes(PAGE_BYTES))
        writer.put_directory(tmp_path)
        writer.put_stream("streams-1", io.BytesIO(b"said"))
        snapshot = writer.commit(task={"command": ["true"]})
    return memory, store, snapshot.id


@pytest.mark.slow
def test_every_byte(small):
    """Whichever byte it is, the snapshot is not whole any more, or not even there."""
    memory, store, snapshot_id = small
    step = 1 if store.encryption_key is None else 7
    assert store.verify(snapshot_id).ok
    sizes = {}
    for name, content in memory.objects.items():
        if name == "snaplib-store.json":
            continue
        sizes[name] = len(content)
        # Of what is encrypted, any is like any other.
        for at in range(0, len(content), step):
            content[at] ^= 1 << at % 8
            findings = store.verify(snapshot_id).findings
            assert {finding.object for finding in findings} == {name}, (name, at)
            content[at] ^= 1 << at % 8
    assert store.verify(snapshot_id).ok
    assert len(sizes) == 5
    assert 2 * PAGE_BYTES > max(sizes.values()) > PAGE_BYTES
