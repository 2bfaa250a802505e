"""The format's document is enough to write a second reader: one that was finds in every stored sample what is in it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests import secondreader
from tests.samplestore import FILE, FIRST, MAPPED, MORE, SECOND, SHARED, TASK

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
    for manifest, pages, file in zip(manifests, (FIRST, SECOND), (FILE, FILE + MORE), strict=True):
        expected = {(TASK.kind, TASK.id, 0x400000 + at * 4096): one for at, one in enumerate(pages)}
        expected[SHARED.kind, SHARED.id, 0] = MAPPED[0]
        assert reader.memory(manifest) == expected
        assert manifest["pages"] == len(expected)
        assert reader.images(manifest) == {"core-1.img": b"core"}
        assert reader.stream(manifest, manifest["extra"]["parts"]) == file


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
