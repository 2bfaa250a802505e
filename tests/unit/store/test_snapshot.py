"""Writing a snapshot and reading it back."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest

from snaplib.errors import SnaplibError, UsageError
from snaplib.store import PAGE_BYTES, PageLogOptions, Space
from snaplib.testing.snapshots import SAMPLE_TASK as TASK
from snaplib.testing.snapshots import feed

SHARED = Space(2, 1 << 40)


@pytest.mark.parametrize("codec", ["auto", "zstd", "none"])
def test_everything_comes_back(store, tmp_path, codec):
    """Pages, a folder and a stream are the same after a round trip."""
    data = os.urandom(3 * PAGE_BYTES) + bytes(600 * PAGE_BYTES) + b"ab" * 2048 * 700
    images = tmp_path / "images"
    images.mkdir()
    (images / "core-7.img").write_bytes(b"core")
    (images / "pages-1.img").write_bytes(b"no")
    with store.begin("a key/..", PageLogOptions(codec=codec, frame_bytes=1 << 18)) as writer:
        writer.pages.run(SHARED, 0, 1, 4)
        feed(writer.pages, data[:PAGE_BYTES])
        writer.pages.run(TASK, 0x10000, len(data) // PAGE_BYTES, 6)
        feed(writer.pages, data)
        writer.put_directory(images, exclude=lambda path: path.name.startswith("pages-"))
        writer.put_stream("streams-1", io.BytesIO(b"said"))
        snapshot = writer.commit(task={"command": ["x"]}, timings={"frozen_s": 0.5})

    assert store.latest("a key/..") == snapshot == store.get(snapshot.id)
    assert snapshot.pages == 1 + len(data) // PAGE_BYTES
    out = tmp_path / "out"
    out.mkdir()
    with store.read(snapshot.id) as reader:
        assert reader.pages.spaces() == [TASK, SHARED]
        assert reader.pages.entries(TASK).tolist() == [
            (0x10000, len(data) // PAGE_BYTES, 6),
        ]
        assert reader.pages.read(TASK, 0x12000, 2) == data[2 * PAGE_BYTES : 4 * PAGE_BYTES]
        with (tmp_path / "pages").open("w+b") as file:
            assert reader.pages.copy_to(TASK, file.fileno()) == len(data)
            file.seek(0)
            assert file.read() == data
        assert reader.extract_directory(out) == 1
        with reader.open_stream("streams-1") as stream:
            assert stream.read() == b"said"
    assert [path.name for path in out.iterdir()] == ["core-7.img"]


def test_without_commit_nothing_is_left(store, tmp_path):
    """A writer that is left uncommitted takes all its objects with it."""
    with store.begin("key") as writer:
        writer.pages.run(TASK, 0, 1000, 4)
        feed(writer.pages, bytes(999 * PAGE_BYTES))

    assert store.snapshots() == []
    assert list((tmp_path / "store" / "objects").iterdir()) == []


def test_bytes_that_do_not_come_are_noticed(store):
    """A snapshot with a run that was declared and not filled cannot be committed."""
    with store.begin("key") as writer:
        writer.pages.run(TASK, 0, 2, 4)
        feed(writer.pages, bytes(PAGE_BYTES))
        with pytest.raises(UsageError, match="4096 bytes"):
            writer.pages.run(TASK, 0x10000, 2, 4)
        with pytest.raises(SnaplibError):
            writer.commit()

    assert store.snapshots() == []


def test_an_ended_task_begins_anew(store):
    """Snapshots from before the end of a task are not resumed, later ones are."""
    with store.begin("key") as writer:
        old = writer.commit()
    store.mark_ended("key", exit_code=0)
    assert store.latest("key") is None
    assert store.ended("key").exit_code == 0
    with store.begin("key") as writer:
        new = writer.commit()

    assert store.latest("key") == new
    assert store.snapshots() == [new, old]
    assert np.all(np.diff([new.created.timestamp(), old.created.timestamp()]) <= 0)
