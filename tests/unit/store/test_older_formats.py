"""Stores that earlier snaplibs made, kept in tests/data/stores: read to the last byte, gone on with, and pruned."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest

from snaplib.store import Store
from tests.samplestore import (
    BLOCK_OPTIONS,
    FILE,
    FIRST,
    MAPPED,
    MORE,
    SHARED,
    TASK,
    contents,
    copy,
    put,
)

STORES = Path(__file__).parents[2] / "data" / "stores"
KEY = bytes.fromhex("42" * 32)


@pytest.fixture(params=sorted(path.name for path in STORES.iterdir()))
def sample(request, tmp_path):
    """A copy of each."""
    shutil.copytree(STORES / request.param, tmp_path / "store")
    key = KEY if request.param.endswith("encrypted") else None
    return Store.open(tmp_path / "store", create=False, encryption_key=key)


@pytest.fixture
def pages(request):
    """What its two snapshots have of the task."""
    return contents(request.node.callspec.params["sample"])


def check(store, snapshot_id, pages, file, folder):
    """Look at everything that is in a snapshot."""
    assert store.verify(snapshot_id).findings == ()
    with store.read(snapshot_id) as reader:
        assert reader.pages.read(TASK, 0x400000, len(pages)) == b"".join(pages)
        assert reader.pages.read(SHARED, 0, 1) == MAPPED[0]
        assert reader.pages.index.pages == len(pages) + 1
        reader.extract_directory(folder)
        assert (folder / "core-1.img").read_bytes() == b"core"
        with reader.open_stream(*reader.snapshot.extra["parts"]) as stream:
            assert stream.read() == file


def test_read(sample, pages, tmp_path):
    """Both snapshots are what they were, in whatever order they are removed."""
    second, first = sample.ids("a/key")
    old, new = pages
    for number, (snapshot_id, content, file) in enumerate(
        [(first, old, FILE), (second, new, FILE + MORE)]
    ):
        (tmp_path / str(number)).mkdir()
        check(sample, snapshot_id, content, file, tmp_path / str(number))
    assert sample.latest("a/key").id == second
    sample.remove(first)
    (tmp_path / "later").mkdir()
    check(sample, second, new, FILE + MORE, tmp_path / "later")


def test_go_on(sample, tmp_path):
    """A new snapshot beside them is found first, and pruning leaves only that."""
    with sample.begin("a/key") as writer:
        put(writer, FIRST, [])
        writer.put_stream("file-1", io.BytesIO(FILE))
        new = writer.commit(extra={"parts": ["file-1"]})
    assert sample.latest("a/key").id == new.id
    assert len(sample.prune(keep=1)) == 2
    (tmp_path / "new").mkdir()
    check(sample, new.id, FIRST, FILE, tmp_path / "new")
    assert {path.name for path in (tmp_path / "store" / "objects").iterdir()} == {new.id}


def test_find_again(sample, pages, tmp_path):
    """What is known of the pages of the newest snapshot by their content is found there, and not stored once more."""
    second, new = sample.ids("a/key")[0], pages[1]
    with sample.begin("a/key", BLOCK_OPTIONS, find=True) as writer:
        copy(writer, new)
        put(writer, new, new)
        writer.put_stream("file-1", io.BytesIO(FILE))
        later = writer.commit(extra={"parts": ["file-1"]})
        found = writer.pages.found_pages
    # Of the segment that is the first one's too little is needed.
    has_blocks = "blocks" in sample.get(second).objects
    assert (found, later.parent) == ((16, second) if has_blocks else (0, None))
    sample.prune(keep=1)
    (tmp_path / "later").mkdir()
    check(sample, later.id, new, FILE, tmp_path / "later")
