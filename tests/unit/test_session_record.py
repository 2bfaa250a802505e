"""The records of a session: the format they are kept in, and what they mean for a restore."""

from __future__ import annotations

import json
import os

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaplib.errors import (
    CommandNotExecutable,
    CommandNotFound,
    RestoreFailed,
    SnaplibError,
    UsageError,
)
from snaplib.session import Backlog, OuterRecord, StreamRecord, StreamsRecord
from snaplib.session.command import locate
from snaplib.session.launch import wire_text
from snaplib.session.outer import Outer, place_output
from snaplib.session.pids import free_pids
from snaplib.session.registry import folder_of

counts = st.integers(0, 2**63)
outers = st.builds(
    OuterRecord,
    kind=st.sampled_from(["file", "pipe", "socket", "terminal", "device", "closed"]),
    path=st.none() | st.text(),
    device=counts,
    inode=counts,
    start_bytes=counts,
    delivered_bytes=counts,
    appends=st.booleans(),
)
streams = st.builds(
    StreamRecord,
    kind=st.sampled_from(["direct", "pipe", "terminal"]),
    fds=st.lists(st.integers(0, 2), min_size=1, unique=True).map(tuple),
    direction=st.sampled_from(["in", "out", "both"]),
    key=st.none() | st.text(),
    ended=st.booleans(),
    outer=outers,
)
leftovers = st.dictionaries(st.integers(0, 2), st.binary())


@given(st.lists(streams, max_size=3).map(lambda found: StreamsRecord(tuple(found))))
def test_streams_survive_their_format(record):
    assert StreamsRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


@given(st.builds(Backlog, inputs=leftovers, outputs=leftovers))
def test_a_backlog_survives_its_format(backlog):
    again = Backlog.from_json(json.loads(json.dumps(backlog.to_json())))
    assert again == backlog
    assert again.size_bytes == backlog.size_bytes


@given(st.binary().map(os.fsdecode))
def test_any_bytes_survive_the_way_to_the_init(text):
    assert json.loads(json.dumps(wire_text(text))).encode("latin-1") == os.fsencode(text)


@given(st.sets(st.integers(2, 2000)))
def testfree_pids_are_free(reserve):
    first = free_pids(reserve)
    assert first >= 2
    assert not reserve & set(range(first, first + 64))


def testfree_pids_may_run_out():
    with pytest.raises(SnaplibError, match="no pids free"):
        free_pids(range(0, 5_000_000, 60))


def output(path, *, start_bytes=0, delivered_bytes=0, appends=False) -> StreamRecord:
    """Describe a stream to a file, as a dump would."""
    found = path.stat()
    outer = OuterRecord(
        "file", str(path), found.st_dev, found.st_ino, start_bytes, delivered_bytes, appends
    )
    return StreamRecord("pipe", (1,), "out", "pipe:[1]", False, outer)


@pytest.fixture
def out(tmp_path):
    path = tmp_path / "out"
    path.write_bytes(b"0123456789")
    return path


def test_output_goes_on_behind_what_the_snapshot_knows(out):
    record = output(out, start_bytes=2, delivered_bytes=5)
    with out.open("r+b") as file:
        assert place_output(record, file.fileno(), captured=False) == (
            {"start_bytes": 2, "delivered_bytes": 5},
            False,
        )
        assert file.tell() == 7
    assert out.read_bytes() == b"0123456"


def test_output_in_an_emptied_file_is_written_again(out):
    record = output(out, delivered_bytes=10)
    with out.open("wb") as file:
        assert place_output(record, file.fileno(), captured=True) == (
            {"start_bytes": 0, "delivered_bytes": 10},
            True,
        )
        with pytest.raises(RestoreFailed, match=">>"):
            place_output(record, file.fileno(), captured=False)


@pytest.mark.parametrize(
    "change", ["appends now", "appended then", "other file", "a pipe", "nothing yet"]
)
def test_output_elsewhere_just_goes_on(out, tmp_path, change):
    record = output(out, delivered_bytes=10)
    if change == "appended then":
        record = attrs.evolve(record, outer=attrs.evolve(record.outer, appends=True))
    if change == "nothing yet":
        record = attrs.evolve(record, outer=attrs.evolve(record.outer, delivered_bytes=0))
    path = tmp_path / "other" if change == "other file" else out
    with path.open("ab" if change == "appends now" else "wb") as file:
        reading, writing = os.pipe()
        fd = writing if change == "a pipe" else file.fileno()
        counted, rewrite = place_output(record, fd, captured=False)
        for end in (reading, writing):
            os.close(end)
    assert (counted["delivered_bytes"], rewrite) == (0, False)


def test_only_files_that_a_rerun_would_empty_are_captured(out):
    record = output(out, start_bytes=3, delivered_bytes=4)
    (source,) = StreamsRecord((record,)).capture_sources()
    assert (source.stream, source.path, source.offset_bytes, source.length_bytes) == (
        1,
        str(out),
        3,
        4,
    )
    appended = attrs.evolve(record, outer=attrs.evolve(record.outer, appends=True))
    assert StreamsRecord((appended,)).capture_sources() == []


def test_terminals_are_external_to_criu():
    terminal = StreamRecord(
        "terminal", (0, 1), "both", "tty[8803:1a]", False, OuterRecord("terminal")
    )
    assert StreamsRecord((terminal,)).external() == ["tty[8803:1a]"]


def test_programs_are_found_as_execvp_does(tmp_path):
    (tmp_path / "bin").mkdir()
    plain, program = tmp_path / "bin" / "tool", tmp_path / "tool"
    for path in (plain, program):
        path.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    environment = {"PATH": f"{plain.parent}:{tmp_path}"}
    assert locate("tool", cwd=tmp_path, environment=environment) == program
    assert locate("./tool", cwd=tmp_path, environment={}) == program
    assert locate("tool", cwd=tmp_path, environment={"PATH": ":/bin"}) == program
    with pytest.raises(CommandNotExecutable, match="chmod"):
        locate("tool", cwd=tmp_path, environment={"PATH": str(plain.parent)})
    for missing in ("nothing", "./nothing", ""):
        with pytest.raises(CommandNotFound):
            locate(missing, cwd=tmp_path, environment=environment)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden", "a b", "x" * 200])
def test_a_name_that_is_no_name(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SNAPLIB_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(UsageError):
        folder_of(name)


def test_outer_descriptors_are_opened_or_said_to_be_unopenable(tmp_path):
    out = tmp_path / "out"
    out.write_bytes(b"old")
    outer = Outer(os.devnull, out, out, append=True)
    assert (len(outer.fds), outer.direct, out.read_bytes()) == (3, [0, 1, 2], b"old")
    outer.close()
    outer = Outer(os.devnull, out, out)
    assert out.read_bytes() == b""
    outer.close()
    with pytest.raises(UsageError, match="standard input"):
        Outer(tmp_path / "missing")
    with pytest.raises(UsageError, match="standard output"):
        Outer(None, tmp_path / "missing" / "out")
