"""Removing snapshots by number and age."""

from __future__ import annotations

import collections
import datetime as dt
import json

import pytest

from snaplib.cli import main
from snaplib.errors import UsageError
from snaplib.testing.snapshots import sample_snapshot


@pytest.fixture
def many(memory_store, clock):
    """Five snapshots of one key and two of another, a day apart; by key, newest first."""
    made: dict[str, list[str]] = {"a": [], "b": []}
    for key in "aabaaba":
        made[key].insert(0, memory_store.begin(key).commit().id)
        clock.now += dt.timedelta(days=1)
    return made


def test_by_number(memory_store, many):
    """The newest of each key stay."""
    gone = memory_store.prune(keep=2)
    assert [snapshot.id for snapshot in gone] == many["a"][2:]
    assert set(memory_store.ids()) == {*many["a"][:2], *many["b"]}


def test_by_age(memory_store, many):
    """What is younger stays."""
    memory_store.prune(older_than_s=3.5 * 86400)
    assert set(memory_store.ids()) == {*many["a"][:2], many["b"][0]}


def test_both_and_one_key(memory_store, many):
    """What either spares stays; other keys are left alone; a dry run removes nothing."""
    options = {"keep": 1, "older_than_s": 2.5 * 86400}
    told = memory_store.prune("a", dry_run=True, **options)
    assert len(memory_store.ids()) == 7
    assert memory_store.prune("a", **options) == told
    assert [snapshot.id for snapshot in told] == many["a"][1:]
    assert set(memory_store.ids()) == {many["a"][0], *many["b"]}
    with pytest.raises(UsageError):
        memory_store.prune(keep=-1)


def test_an_unreadable_manifest_is_left_alone(memory_store, many, memory):
    """Told of, not removed, and what it may refer to stays."""
    name = next(name for name in memory.objects if many["b"][1] in name and "manifests" in name)
    memory.objects[name][10] ^= 1
    errors = []
    memory_store.prune(keep=1, on_error=errors.append)
    assert len(errors) == 1
    assert set(memory_store.ids()) == {many["a"][0], *many["b"]}


def test_command(store, capsys):
    """`snaplib prune` says what it removed, and wants to be told what may go."""
    ids = [sample_snapshot(store).id for _ in range(3)]
    assert main(["prune", "--store", store.url]) == 2
    assert "nothing says what may go" in capsys.readouterr().err
    assert main(["prune", "--store", store.url, "--older-than", "soon"]) == 2
    assert main(["prune", "--store", store.url, "--older-than", "1w"]) == 0
    assert "0 snapshots removed" in capsys.readouterr().err
    assert main(["prune", "--store", store.url, "--keep", "1", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["removed"] == [ids[1], ids[0]]
    assert len(store.ids()) == 3
    assert main(["prune", "--store", store.url, "--keep", "1"]) == 0
    assert capsys.readouterr().out.split() == [ids[1], ids[0]]
    assert store.ids() == [ids[2]]
    assert store.verify(ids[2]).ok


def test_manifests_are_read_once(memory_store, many, memory, monkeypatch):
    """To choose, and once more to see what is still referred to: not again for each that goes."""
    read, get = collections.Counter(), memory.get

    def counted(name):
        read[name] += name.startswith("manifests/")
        return get(name)

    monkeypatch.setattr(memory, "get", counted)
    assert len(memory_store.prune(keep=1)) == 5
    assert sum(read.values()) <= 2 * 7
    assert max(read.values()) == 2


def test_what_dead_writers_left_goes_too(store):
    """Though nothing else is removed."""
    kept = sample_snapshot(store)
    debris = store.backend.create("objects/20260101T000000.000000-aaaaaa/segment-0000", bulk=True)
    debris.append(b"x")
    debris.commit()
    assert store.prune(keep=1, dry_run=True) == []
    assert len(list(store.backend.names("objects/20260101T000000.000000-aaaaaa"))) == 1
    assert store.prune(keep=1) == []
    assert list(store.backend.names("objects/20260101T000000.000000-aaaaaa")) == []
    assert store.verify(kept.id).ok
