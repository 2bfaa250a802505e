"""Traces: what is read is what was written, and what was cut off ends with the last whole profile."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import pytest

from snaplib.errors import UsageError
from snaplib.observe import (
    DESCRIPTOR_DTYPE,
    SOCKET_DTYPE,
    DescriptorTable,
    FaultCounts,
    Losses,
    Member,
    Memory,
    PageAges,
    Profile,
    SocketTable,
    Trace,
    TraceWriter,
    TreeCounts,
    TreeEvent,
)
from snaplib.observe.codec import decode, encode


def profile(serial: int = 0) -> Profile:
    descriptors = np.zeros(3, DESCRIPTOR_DTYPE)
    descriptors["pid"], descriptors["fd"], descriptors["path"] = 23, [0, 1, 7], [0, 0, 1]
    descriptors["position"] = [-1, serial, 1 << 40]
    sockets = np.zeros(1, SOCKET_DTYPE)
    sockets["family"], sockets["local"] = 2, [[127, 0, 0, 1, *([0] * 12)]]
    return Profile(
        monotonic_s=1000.1 + serial,
        wall_s=1.7e9 + serial / 3,
        interval_s=1.0,
        duration_s=0.003,
        pid=23,
        source="ebpf",
        dirty_basis="armed",
        notes=("one thing is missing",),
        members=(
            Member(23, 1, "näme \udcff", 3, 99, 1 << 30, 1 << 29, 1.5, 0.25, FaultCounts(1, 2, 3)),
        ),
        cgroup="/a",
        memory=Memory(anon_bytes=serial * 4096, mappings=23, measured_s=1000.0),
        growth_bytes_s=-2.5,
        dirty_rate_bytes_s=1 / 3,
        dirty_runs=2 / 3,
        page_ages=PageAges(999.9 + serial, [999.0, 998.0], [0.1, 0.3 + serial / 7]),
        untracked_bytes=4096,
        frozen_s=0.002,
        faults=FaultCounts(other=7),
        counts=TreeCounts(forks=23, tcp_changes=(("ESTABLISHED", 23),)),
        events=(TreeEvent(1000.0, "fork", 23, 24),),
        descriptors=DescriptorTable(descriptors, ("/dev/null", "/tmp/\udce4 (deleted)")),
        sockets=SocketTable(sockets),
        losses=Losses(events=1),
    )


def test_a_profile_survives_being_bytes() -> None:
    assert decode(encode(profile(5))) == profile(5)
    assert decode(encode(profile(5))) != profile(6)


def test_every_field_is_kept() -> None:
    """A field added to a record and forgotten in the codec shows here."""
    back = decode(encode(profile(5)))
    for field in attrs.fields(Profile):
        assert getattr(back, field.name) != field.default or field.default in ((), "", 0)


def _rewritten(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The bytes of a profile with another head."""
    (length,) = struct.unpack_from("<I", data)
    head = json.loads(data[4 : 4 + length])
    change(head)
    text = json.dumps(head).encode()
    return struct.pack("<I", len(text)) + text + data[4 + length :]


def test_what_an_older_version_lacked_has_its_default() -> None:
    def older(head):
        del head["dirty_runs"], head["memory"]["mappings"]

    back = decode(_rewritten(encode(profile(5)), older))
    memory = attrs.evolve(profile(5).memory, mappings=0)
    assert back == attrs.evolve(profile(5), dirty_runs=0.0, memory=memory)


def test_what_a_newer_version_adds_is_passed_over() -> None:
    def newer(head):
        head["phase_of_the_moon"] = {"full": True}
        for record in ("memory", "faults", "counts", "losses"):
            head[record]["of_tomorrow"] = 1
        head["members"][0]["of_tomorrow"] = head["events"][0]["of_tomorrow"] = []

    assert decode(_rewritten(encode(profile(5)), newer)) == profile(5)


def test_a_trace_reads_back(tmp_path) -> None:
    path = tmp_path / "a.trace"
    profiles = [profile(serial) for serial in range(200)]
    with TraceWriter(path) as writer:
        for one in profiles:
            writer.write(one)
    trace = Trace(path)
    assert list(trace) == profiles
    assert list(trace) == profiles, "it can be read again"
    assert path.stat().st_size < 200 * 250


def test_a_trace_is_continued(tmp_path) -> None:
    path = tmp_path / "a.trace"
    for serial in range(3):
        with TraceWriter(path) as writer:
            writer.write(profile(serial))
    assert list(Trace(path)) == [profile(serial) for serial in range(3)]


def test_a_trace_cut_off_anywhere_gives_what_is_whole(tmp_path) -> None:
    path = tmp_path / "a.trace"
    ends = []
    with TraceWriter(path) as writer:
        for serial in range(3):
            writer.write(profile(serial))
            ends.append(path.stat().st_size)
    content = path.read_bytes()
    for cut in range(16, len(content)):
        path.write_bytes(content[:cut])
        assert len(list(Trace(path))) == sum(end <= cut for end in ends)
    path.write_bytes(content[: ends[1] + 5])
    with TraceWriter(path) as writer:
        writer.write(profile(9))
    assert list(Trace(path)) == [profile(0), profile(1), profile(9)]


def test_a_damaged_record_ends_the_trace(tmp_path) -> None:
    path = tmp_path / "a.trace"
    with TraceWriter(path) as writer:
        writer.write(profile(0))
        good = path.stat().st_size
        writer.write(profile(1))
    content = bytearray(path.read_bytes())
    content[good + 20] ^= 0x40
    path.write_bytes(content)
    assert list(Trace(path)) == [profile(0)]


@pytest.mark.parametrize("content", [b"", b"hello", b"x" * 100])
def test_what_is_no_trace_is_told_so(tmp_path, content) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is not a trace"):
        Trace(path)
    if content:
        with pytest.raises(UsageError, match="is not a trace"):
            TraceWriter(path)
        assert path.read_bytes() == content


def test_a_trace_of_a_newer_version_is_told_so(tmp_path) -> None:
    path = tmp_path / "a.trace"
    TraceWriter(path).close()
    content = bytearray(path.read_bytes())
    content[8] = 200
    path.write_bytes(content)
    with pytest.raises(UsageError, match="version 200"):
        Trace(path)


def test_a_missing_trace_is_told_so(tmp_path) -> None:
    with pytest.raises(UsageError, match="there is no trace"):
        Trace(tmp_path / "none")
