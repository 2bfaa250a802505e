"""The commands that look into a store."""

from __future__ import annotations

import json

import pytest

from snaplib.cli import main
from snaplib.testing.snapshots import sample_snapshot


@pytest.fixture
def snapshot(store, tmp_path):
    return sample_snapshot(store, "a key")


def test_snapshots(store, snapshot, tmp_path, capsys):
    """The list has a line a snapshot, newest first, and can be narrowed to a key."""
    other = sample_snapshot(store, "other\x1b[31m")

    assert main(["snapshots", "--store", store.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["ID", "KEY", "WHEN", "COMMAND", "SIZE", "STORED", "PAGES", "FROZEN"]
    assert [line.split()[0] for line in lines[1:]] == [other.id, snapshot.id]
    assert "sleep 1" in lines[2]
    assert "250 ms" in lines[2]
    assert "\x1b" not in lines[1]

    assert main(["snapshots", "--store", store.url, "--key", "a key", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [entry["id"] for entry in data["snapshots"]] == [snapshot.id]
    assert data["snapshots"][0]["raw_bytes"] == snapshot.pages * 4096


def test_no_snapshots(store, capsys):
    """An empty store is not an error."""
    assert main(["snapshots", "--store", store.url]) == 0
    assert main(["verify", "--store", store.url]) == 0
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines() == [f"snaplib: no snapshots in {store.url}"] * 2


@pytest.mark.parametrize("verb", [["snapshots"], ["show", "2026"], ["verify"]])
def test_no_store(tmp_path, verb, capsys):
    """A store that does not exist is one line and status 2, and is not made."""
    assert main([*verb, "--store", str(tmp_path / "none")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_show(store, snapshot, capsys):
    """One snapshot in detail, by the beginning of its id."""
    assert main(["show", snapshot.id[:8], "--store", store.url]) == 0
    text = capsys.readouterr().out
    for expected in (
        snapshot.id,
        "sleep 1",
        "a key",
        "segment-0000",
        "shared memory",
        "kernel 6.1",
    ):
        assert expected in text

    assert main(["show", snapshot.id, "--store", store.url, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["spaces"] == [
        {"kind": "task", "id": 7, "runs": 1, "pages": 120},
        {"kind": "shared memory", "id": 99, "runs": 1, "pages": 3},
    ]
    assert all(data["frames"][kind] > 0 for kind in ("raw", "zstd", "zero"))
    assert main(["show", "nothing", "--store", store.url]) == 2


def test_verify(store, snapshot, tmp_path, capsys):
    """Whole is 0; damaged is 176, and says what."""
    kept = sample_snapshot(store)
    assert main(["verify", "--store", store.url, "--all"]) == 0
    capsys.readouterr()
    with (tmp_path / "store" / "objects" / snapshot.id / "images").open("r+b") as file:
        file.write(b"\0\0")

    assert main(["verify", "--store", store.url]) == 176
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{kept.id}: whole")
    assert all(line.startswith(f"{snapshot.id}: damaged") for line in lines[1:])
    assert main(["verify", snapshot.id, "--store", store.url, "--json"]) == 176
    data = json.loads(capsys.readouterr().out)
    assert data["ok"] is False
    assert data["snapshots"][0]["findings"][0]["object"] == f"objects/{snapshot.id}/images"
    assert main(["verify", kept.id, "--store", store.url]) == 0
    assert main(["verify", kept.id, "--all", "--store", store.url]) == 2


def test_damaged_manifest(store, snapshot, tmp_path, capsys):
    """One damaged manifest does not hide the others."""
    kept = sample_snapshot(store)
    (manifest,) = (tmp_path / "store" / "manifests" / "a key").iterdir()
    manifest.write_text("{}")

    assert main(["snapshots", "--store", store.url]) == 176
    output = capsys.readouterr()
    assert kept.id in output.out
    assert "manifests/a key" in output.err
    assert main(["verify", "--store", store.url]) == 176
