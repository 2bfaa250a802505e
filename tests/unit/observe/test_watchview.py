"""The live view and the lines of `snaplib watch`."""

from __future__ import annotations

import io
import json

import attrs
import numpy as np
from rich.console import Console

from snaplib.cli.watch import as_json, as_line
from snaplib.cli.watchview import render, sparkline
from snaplib.observe import (
    DESCRIPTOR_DTYPE,
    SOCKET_DTYPE,
    DescriptorKind,
    DescriptorTable,
    Losses,
    Member,
    Memory,
    PageAges,
    Profile,
    SocketTable,
)
from snaplib.observe.descriptors import kind_number


def profile(**changes: object) -> Profile:
    descriptors = np.zeros(2, DESCRIPTOR_DTYPE)
    descriptors["kind"] = [kind_number(DescriptorKind.FILE), kind_number(DescriptorKind.IO_URING)]
    sockets = np.zeros(1, SOCKET_DTYPE)
    sockets["family"], sockets["type"], sockets["protocol"], sockets["state"] = 2, 1, 6, 1
    sockets["receive_queue"], sockets["send_queue"] = 4711, -1
    whole = Profile(
        monotonic_s=100.0,
        wall_s=1.7e9,
        interval_s=1.0,
        duration_s=0.003,
        pid=23,
        source="ebpf",
        dirty_basis="sampled",
        members=(Member(23, 1, "work", 3, 99, 1 << 30, 1 << 29, 1.5, 0.5),),
        memory=Memory(anon_bytes=3 << 30, file_clean_bytes=1 << 20),
        dirty_rate_bytes_s=5 << 20,
        page_ages=PageAges(100.0, [99.0, 90.0], [5 << 20, 40 << 20]),
        descriptors=DescriptorTable(descriptors, ("/a",)),
        sockets=SocketTable(sockets),
    )
    return attrs.evolve(whole, **changes)


def shown(*arguments: object) -> str:
    console = Console(file=io.StringIO(), width=100, force_terminal=False)
    console.print(render(*arguments))
    return console.file.getvalue()


def test_the_view() -> None:
    before = profile(members=(Member(23, 1, "work", 3, 99, 1 << 30, 1 << 29, 1.2, 0.5),))
    text = shown(profile(), before, [0.0, 1.0, 2.0])
    for part in ("work 23", "CPU 30 %", "5.0 MiB/s", "40.0 MiB", "3.0 GiB", "io_uring 1 (cannot"):
        assert part in text
    assert "4711" in text
    assert "lost" not in text


def test_what_was_lost_and_what_is_missing_is_shown() -> None:
    text = shown(profile(losses=Losses(events=23), notes=("no eBPF: for a reason",)), None, [])
    assert "lost: 23 events" in text
    assert "no eBPF: for a reason" in text


def test_the_root_may_be_gone() -> None:
    assert "the root has ended" in shown(profile(pid=24), None, [])


def test_sparkline() -> None:
    assert sparkline([]) == ""
    assert sparkline([0.0, 0.0]) == "  "
    assert sparkline([0.0, 1e-9, 50.0, 100.0]) == " ▁▄█"


def test_the_line_says_what_the_figures_are_worth() -> None:
    assert "dirty ~5.0 MiB/s" in as_line(profile())
    assert "dirty >=5.0 MiB/s" in as_line(profile(dirty_basis="faults"))
    assert "dirty 5.0 MiB/s" in as_line(profile(dirty_basis="armed"))


def test_json_has_units_in_its_keys() -> None:
    told = json.loads(json.dumps(as_json(profile())))
    assert told["dirty"]["rate_bytes_s"] == 5 << 20
    assert told["dirty"]["distinct_bytes"]["1"] == 5 << 20
    assert told["memory"]["dumpable_bytes"] == 3 << 30
    assert told["descriptors"]["by_kind"] == {"file": 1, "io_uring": 1}
    assert told["sockets"] == {
        "total": 1,
        "tcp_by_state": {"ESTABLISHED": 1},
        "queued_bytes": 4711,
    }
