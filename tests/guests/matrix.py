"""Writes docs/support.md: which kernel has which feature, out of the results of `python -m tests.guests test`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.guests.image import ROOT
from tests.guests.results import RESULTS

PAGE = ROOT / "docs/support.md"

_HEAD = """\
# Kernels

Written by `python -m tests.guests matrix` from what `make test-guests` found; see [other kernels](guests.md).
Debian's kernels of the cloud flavour, x86-64, in emulated machines with one CPU; CRIU {criu}.

## What `snaplib doctor` finds

"""

_TESTS = """
## What the tests find

Tests that passed; a dash where the kernel lacks what all of them need.

"""

_MOVES = """
## From machine to machine

Two machines and an S3 server. The task has a child, open files, a deleted one and a connection to a third party, which
must not notice anything; the machine that is cut off is cut off while its last dump is being uploaded, and what is
resumed then is the snapshot before.

"""

#: What moves between two guests are called on the page.
_WAYS = {
    "eager": "saved on notice, resumed",
    "lazy": "saved on notice, restored lazily",
    "cut": "cut off while it saves",
}

_FOOT = """
## Elsewhere

The kernel that this is developed on (6.18, built without soft-dirty bits, under lockdown) runs all of `make test`.
On aarch64 nothing has been run: the library refuses the architecture where it knows only x86-64 (injecting system calls
for `write-protect` tracking), and Linux has no soft-dirty bits there, so all dumps would be full ones.
"""

#: What the tests of a file are about.
_SUBJECTS = {
    "tests/guests/inside/test_host.py": "`snaplib doctor` is right",
    "tests/guests/inside/test_softdirty.py": "soft-dirty tracking misses nothing",
    "tests/guests/inside/test_chains.py": "incremental dumps by CRIU, restored",
    "tests/guests/inside/test_leave_snapshots.py": "snapshots for other kernels",
    "tests/guests/inside/test_other_kernels.py": "snapshots of other kernels restored",
    "tests/kernel/track": "write-protect tracking misses nothing",
    "tests/kernel/observe": "eBPF programs count right",
    "tests/kernel/test_doctor.py": "the probe of the host",
    "tests/kernel/test_dump_restore.py": "dump and restore of each kernel feature",
    "tests/kernel/test_freezer.py": "freezing",
    "tests/kernel/test_shim.py": "preload library for CRIU",
}


def write_matrix(page: Path = PAGE, results: Path = RESULTS / "results.json") -> int:
    """Write the page; return 1 if there are no results.

    Args:
        page: To write.
        results: What `tests.guests.results` wrote.
    """
    if not results.exists():
        print(f"guests: no results in {results}: run `python -m tests.guests test` first")
        return 1
    found = json.loads(results.read_text())
    kernels = found["kernels"]
    told = [one["doctor"] for one in kernels.values()]
    releases = [one["kernel"].removesuffix("-cloud-amd64") for one in told]
    parts = [
        _HEAD.format(criu=told[0]["criu"]["version"]),
        _table(["feature", *releases], _features(told)),
        _TESTS,
        _table(["tests", *releases], _tests([one["tests"] for one in kernels.values()])),
    ]
    if found["moves"]:
        named = dict(zip(kernels, releases, strict=True))
        parts += [_MOVES, _table(["way", "from", "to", ""], _moves(found["moves"], named))]
    page.write_text("".join([*parts, _FOOT]))
    print(page)
    return 0


def _features(told: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    rows = [
        ["dirty pages by", *(one["tracking"] for one in told)],
        ["eBPF programs", *(one["bpf"] for one in told)],
    ]
    for name in dict.fromkeys(name for one in told for name in one["features"]):
        features = [one["features"].get(name) for one in told]
        cells = ["" if one is None else "yes" if one["ok"] else "no" for one in features]
        rows.append([name.replace("_", " "), *cells])
    return rows


def _tests(kernels: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[list[str]]:
    rows = []
    for place, subject in _SUBJECTS.items():
        cells = [
            _cell([one for path, one in tests.items() if path.startswith(place)])
            for tests in kernels
        ]
        if any(cells):
            rows.append([subject, *cells])
    return rows


def _moves(moves: Sequence[Mapping[str, Any]], releases: Mapping[str, str]) -> list[list[str]]:
    return [
        [
            _WAYS.get(one["way"], one["way"]),
            releases.get(one["source"], one["source"]),
            releases.get(one["target"], one["target"]),
            "passed" if one["moved"] else "**failed**",
        ]
        for one in moves
    ]


def _cell(found: Sequence[Mapping[str, Any]]) -> str:
    passed = sum(one["passed"] for one in found)
    failed = sum(len(one["failed"]) for one in found)
    skipped = sum(one["skipped"] for one in found)
    if failed:
        return f"**{failed} failed**, {passed} passed"
    if not passed:
        return "-" if found else ""
    return f"{passed}" + (f", {skipped} do not apply" if skipped else "")


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(
        f"| {' | '.join(re.sub(r'[|]', '/', cell) for cell in line)} |\n" for line in lines
    )
