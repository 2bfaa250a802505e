"""Writes docs/support.md: which kernel has which feature, out of the results of `python -m tests.guests test`."""

from __future__ import annotations

import re
from pathlib import Path

from tests.guests.image import KERNELS, ROOT
from tests.guests.suite import RESULTS, Verdict, doctor, verdicts

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
    "tests/guests/inside/test_migration.py": "moved with a live connection",
    "tests/kernel/track": "write-protect tracking misses nothing",
    "tests/kernel/observe": "eBPF programs count right",
    "tests/kernel/test_doctor.py": "the probe of the host",
    "tests/kernel/test_dump_restore.py": "dump and restore of each kernel feature",
    "tests/kernel/test_freezer.py": "freezing",
    "tests/kernel/test_shim.py": "preload library for CRIU",
}


def write_matrix(page: Path = PAGE) -> int:
    """Write the page; return 1 if there are no results."""
    kernels = [kernel for kernel in KERNELS if (RESULTS / kernel / "doctor.json").exists()]
    if not kernels:
        print(f"guests: no results in {RESULTS}: run `python -m tests.guests test` first")
        return 1
    told = {kernel: doctor(kernel) for kernel in kernels}
    parts = [_HEAD.format(criu=told[kernels[0]]["criu"]["version"])]
    releases = [told[kernel]["kernel"].removesuffix("-cloud-amd64") for kernel in kernels]
    parts.append(_table(["feature", *releases], _features(told)))
    parts.append(_TESTS)
    parts.append(_table(["tests", *releases], _tests(kernels)))
    parts.append(_FOOT)
    page.write_text("".join(parts))
    print(page)
    return 0


def _features(told: dict[str, dict]) -> list[list[str]]:
    rows = [
        ["dirty pages by", *(one["tracking"] for one in told.values())],
        ["eBPF programs", *(one["bpf"] for one in told.values())],
    ]
    names = dict.fromkeys(name for one in told.values() for name in one["features"])
    for name in names:
        cells = []
        for one in told.values():
            feature = one["features"].get(name)
            cells.append("" if feature is None else "yes" if feature["ok"] else "no")
        rows.append([name.replace("_", " "), *cells])
    return rows


def _tests(kernels: list[str]) -> list[list[str]]:
    found = {kernel: verdicts(kernel) for kernel in kernels}
    rows = []
    for place, subject in _SUBJECTS.items():
        cells = []
        for kernel in kernels:
            mine = [one for path, one in found[kernel].items() if path.startswith(place)]
            cells.append(_cell(mine))
        if any(cells):
            rows.append([subject, *cells])
    return rows


def _cell(found: list[Verdict]) -> str:
    if not found:
        return ""
    passed = sum(one.passed for one in found)
    failed = sum(len(one.failed) for one in found)
    skipped = sum(one.skipped for one in found)
    if failed:
        return f"**{failed} failed**, {passed} passed"
    if not passed:
        return "-"
    return f"{passed}" + (f", {skipped} do not apply" if skipped else "")


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(
        f"| {' | '.join(re.sub(r'[|]', '/', cell) for cell in line)} |\n" for line in lines
    )
