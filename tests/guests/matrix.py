"""Writes docs/support.md: which kernel has which feature, out of the results of `python -m tests.guests test`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.guests.image import ROOT
from tests.guests.pair import MOVES
from tests.guests.plan import INSIDE, TRACK, files
from tests.guests.results import RESULTS

PAGE = ROOT / "docs/support.md"

_HEAD = """\
# Kernels

Written by `python -m tests.guests matrix` from what `make test-guests` found; see [other kernels](guests.md).
Debian's kernels of the cloud flavour, x86-64, in emulated machines with one CPU; CRIU {criu}.
*Not run* means what it says: nobody knows.

## What `snaplib doctor` finds

"""

_TESTS = """
## What the tests find

A dash where they are of what the kernel lacks, or of what is not used on it; some of a file's do not apply for what it
lacks. Dumps by soft-dirty bits need `hidden memory` if a task has any: without it they are full ones, see
[copying ahead](warm.md).

A task saved under a kernel that knows more of restartable sequences (rseq) than the one it is to go on under is refused
there if its C library has registered them with more than 32 bytes, as glibc 2.41 does under 7.2: kernels before 6.3
take no more.

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

On aarch64 nothing has been run. Reasoned, from the kernel's headers and its source: it has no soft-dirty bits. What
tracking by write protection has to know of the machine is written down and has never been tried, so it is off unless
`SNAPLIB_UNTRIED_MACHINE=1` is set, and every dump is a full one.
"""

#: What the tests of a file are about.
_SUBJECTS = {
    f"{INSIDE}/test_host.py": "`snaplib doctor` is right",
    f"{INSIDE}/test_differences.py": "what kernels do differently is known",
    f"{INSIDE}/test_leave_snapshots.py": "a task of many features is dumped and restored",
    f"{INSIDE}/test_other_kernels.py": "the same from each other kernel; its eBPF programs are refused",
    f"{INSIDE}/test_running.py": "tracking misses no write of running programs",
    f"{INSIDE}/test_softdirty.py": "soft-dirty tracking is exact",
    TRACK: "write-protect tracking is exact",
    f"{INSIDE}/test_chains.py": "chains of incremental dumps restore to the same memory",
    "tests/kernel/test_freezer.py": "freezing, and thawing whatever happens",
    "tests/kernel/observe/test_exact.py": "eBPF programs load and count right",
}

_NOT_RUN = "not run"


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
    named = {
        name: one["kernel"].removesuffix("-cloud-amd64") if one else name
        for name, one in zip(kernels, told, strict=True)
    }
    releases = [*named.values()]
    versions = dict.fromkeys(one["criu"]["version"] for one in told if one)
    parts = [
        _HEAD.format(criu=", ".join(versions) or _NOT_RUN),
        _table(["feature", *releases], _features(told)),
        _TESTS,
        _table(["tests", *releases], _tests({name: one["tests"] for name, one in kernels.items()})),
        _MOVES,
        _table(["way", "from", "to", ""], _moves(found["moves"], named)),
        _FOOT,
    ]
    page.write_text("".join(parts))
    print(page)
    return 0


def _features(told: Sequence[Mapping[str, Any] | None]) -> list[list[str]]:
    rows = [
        ["dirty pages by", *(one["tracking"] if one else _NOT_RUN for one in told)],
        ["eBPF programs", *(one["bpf"] if one else _NOT_RUN for one in told)],
    ]
    for name in dict.fromkeys(name for one in told if one for name in one["features"]):
        cells = [_feature(one["features"].get(name)) if one else _NOT_RUN for one in told]
        rows.append([name.replace("_", " "), *cells])
    return rows


def _feature(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return _NOT_RUN
    return "yes" if found["ok"] else "no"


def _tests(kernels: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[list[str]]:
    planned = {name: files(name) for name in kernels}
    return [
        [
            subject,
            *(
                _cell(tests[path]) if path in tests else _NOT_RUN if path in planned[name] else "-"
                for name, tests in kernels.items()
            ),
        ]
        for path, subject in _SUBJECTS.items()
    ]


def _moves(moves: Sequence[Mapping[str, Any]], releases: Mapping[str, str]) -> list[list[str]]:
    made = {one["way"]: one for one in moves}
    rows = []
    for way, kernels in MOVES.items():
        one = made.get(way)
        source, target = (one["source"], one["target"]) if one else kernels
        verdict = _NOT_RUN if one is None else "passed" if one["moved"] else "**failed**"
        rows.append([_WAYS[way], releases[source], releases[target], verdict])
    return rows


def _cell(found: Mapping[str, Any]) -> str:
    failed, not_run, passed = len(found["failed"]), len(found["not_run"]), found["passed"]
    if not passed and not failed and not not_run:
        return "-"
    parts = [f"**{failed} failed**"] * bool(failed) + [f"{passed} passed"]
    parts += [f"{found['skipped']} do not apply"] * bool(found["skipped"])
    parts += [f"{not_run} {_NOT_RUN}"] * bool(not_run)
    return ", ".join(parts)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(
        f"| {' | '.join(re.sub(r'[|]', '/', cell) for cell in line)} |\n" for line in lines
    )
