"""What `snaplib doctor` says of kernels of which we know what they have."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def told() -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "snaplib", "doctor", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    if Path("/out").is_dir():
        Path("/out/doctor.json").write_text(done.stdout)
    assert done.stderr == ""
    return json.loads(done.stdout)


def version() -> tuple[int, int]:
    major, minor = platform.release().split(".")[:2]
    return int(major), int(minor)


def configured(option: str) -> bool:
    """Whether the kernel says that it was built with an option."""
    for path in (Path(f"/boot/config-{platform.release()}"),):
        if path.exists():
            return f"{option}=y\n" in path.read_text()
    pytest.skip("the kernel does not tell how it was configured")


def test_tasks_can_be_dumped_and_restored(told):
    assert told["ok"], {name: one for name, one in told["features"].items() if not one["ok"]}


def test_dirty_pages_are_found_by_the_best_there_is(told):
    # PAGEMAP_SCAN and WP_ASYNC are of v6.7; Debian has soft-dirty bits on x86-64.
    features = told["features"]
    assert features["write_protect"]["ok"] == (version() >= (6, 7)), features["write_protect"]
    assert features["soft_dirty"]["ok"], features["soft_dirty"]
    assert told["tracking"] == ("write-protect" if version() >= (6, 7) else "soft-dirty")
    assert features["incremental"]["ok"], features["incremental"]


def test_programs_load(told):
    assert told["bpf"] == "full", told["features"]


def test_remedies_are_for_what_is_missing(told):
    for name, one in told["features"].items():
        assert bool(one["remedy"]) != one["ok"], name


def test_what_criu_finds_of_the_kernel_is_what_we_find(told):
    def check(feature: str) -> bool:
        command = [told["criu"]["path"], "check", "--feature", feature]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    assert check("mem_dirty_track") == told["features"]["soft_dirty"]["ok"]
    assert check("pagemap_scan") == (version() >= (6, 7))
    assert os.geteuid() == 0
