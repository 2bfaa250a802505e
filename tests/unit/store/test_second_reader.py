"""The format's document is enough to write a second reader: one that was finds in every stored sample what is in it."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import blake3
import pytest

from snaplib.store import PAGE_BYTES, PageLogOptions, RunSet, Store
from tests import secondreader
from tests.samplestore import FILE, MAPPED, MORE, SHARED, TASK, contents

STORES = Path(__file__).parents[2] / "data" / "stores"
SAMPLES = sorted(path.name for path in STORES.iterdir())
KEY = bytes.fromhex("42" * 32)


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_samples(sample):
    """All pages of both snapshots, the images, and the file that went along."""
    reader = secondreader.Reader(STORES / sample, KEY if sample.endswith("encrypted") else None)
    manifests = reader.snapshots("a/key")
    assert len(manifests) == 2
    assert {one["format"] for one in manifests} <= {2, int(sample.split("-")[1])}
    both = zip(manifests, contents(sample), (FILE, FILE + MORE), strict=True)
    for manifest, pages, file in both:
        expected = {(TASK.kind, TASK.id, 0x400000 + at * 4096): one for at, one in enumerate(pages)}
        expected[SHARED.kind, SHARED.id, 0] = MAPPED[0]
        assert reader.memory(manifest) == expected
        assert manifest["pages"] == len(expected)
        assert reader.images(manifest) == {"core-1.img": b"core"}
        assert reader.stream(manifest, manifest["extra"]["parts"]) == file
        digests = reader.digests(manifest)
        sequence = b"".join(reader.frame(manifest, frame) for frame in reader.index(manifest)[1])
        for position, digest in digests:
            block = sequence[position * 4096 : (position + 16) * 4096]
            assert blake3.blake3(block).digest(24) == digest
        # The second also has the one that changed, as it was: something else of that frame is needed.
        assert len(digests) == (4 + (manifest is manifests[1]) if "blocks" in sample else 0)
    assert [one["owner"] for one in manifests[1]["segments"]] == [one["id"] for one in manifests]


def test_blocks(tmp_path):
    """It finds the digests of what was copied ahead, and what they are of."""
    store = Store.open(tmp_path)
    memory = random.Random(5).randbytes(42 * PAGE_BYTES)
    with store.begin("key", PageLogOptions(frame_bytes=32 * PAGE_BYTES)) as writer:
        log = writer.pages
        first = log.page_number(TASK, 0x7000)

        def read(room, some):
            begin = (int(some.begins[0]) - first) * PAGE_BYTES
            room[:] = memory[begin : begin + len(room)]
            return some

        feed = log.feed()
        feed.gather(RunSet.of([first], [first + 42]), read, lambda: False)
        log.take(feed)
        log.release(feed)
        log.hole(TASK, 0x7000, 42, 4)
        writer.commit()
    reader = secondreader.Reader(tmp_path)
    (manifest,) = reader.snapshots("key")
    pages = reader.memory(manifest)
    # The page at 0x10000 is the tenth: of the two blocks that are whole, the second begins a frame.
    assert [position for position, _ in reader.digests(manifest)] == [9, 25]
    for (_, digest), at in zip(reader.digests(manifest), (0x10000, 0x20000), strict=True):
        content = b"".join(pages[TASK.kind, TASK.id, at + page * PAGE_BYTES] for page in range(16))
        assert blake3.blake3(content).digest(24) == digest


def test_it_stands_alone():
    """It imports nothing of ours, and is short."""
    text = Path(secondreader.__file__).read_text()
    roots = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            roots.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Import):
            roots |= {one.name.partition(".")[0] for one in node.names}
    assert not roots & {"snaplib", "tests"}
    assert len(text.splitlines()) <= 150
