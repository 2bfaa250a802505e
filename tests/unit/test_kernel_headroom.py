"""How much memory there is to be had, on made-up machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from snaplib.kernel.headroom import memory_headroom_bytes

MIB = 1 << 20


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine with 1000 MiB to be had, and us in no cgroup that limits anything."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 4096000 kB\nMemAvailable: 1024000 kB\n")
    (tmp_path / "proc/self/cgroup").write_text("0::/outer/inner\n")
    return tmp_path


def limit(machine: Path, cgroup: str, **files: str) -> None:
    """Make a cgroup with some files."""
    folder = machine / "cgroup" / cgroup
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content + "\n")


def headroom_mib(machine: Path) -> int:
    return memory_headroom_bytes(machine / "proc", machine / "cgroup") // MIB


def test_without_limits(machine: Path) -> None:
    """What the kernel says is available."""
    assert headroom_mib(machine) == 1000
    limit(machine, "outer/inner", memory__max="max", memory__current="5")
    assert headroom_mib(machine) == 1000


def test_the_tightest_limit_counts(machine: Path) -> None:
    """A cgroup above ours may allow less than ours; what it can drop is not in the way."""
    limit(machine, "outer/inner", memory__max=str(900 * MIB), memory__current=str(100 * MIB))
    assert headroom_mib(machine) == 800
    limit(machine, "outer", memory__max=str(600 * MIB), memory__current=str(500 * MIB))
    assert headroom_mib(machine) == 100
    stat = f"anon 77\nfile 99\ninactive_file {60 * MIB}\nactive_file {40 * MIB}"
    limit(machine, "outer", memory__stat=stat)
    assert headroom_mib(machine) == 200
    limit(machine, "outer", memory__max="0")
    assert headroom_mib(machine) == 0


def test_version_1(machine: Path) -> None:
    """Its memory controller has a hierarchy and names of its own."""
    (machine / "proc/self/cgroup").write_text("9:cpu,memory:/job\n0::/\n")
    files = {
        "memory__limit_in_bytes": str(300 * MIB),
        "memory__usage_in_bytes": str(50 * MIB),
    }
    limit(machine, "memory/job", **files)
    assert headroom_mib(machine) == 250


@pytest.mark.parametrize("content", ["", "MemAvailable:", "MemAvailable: many kB"])
def test_a_machine_that_does_not_say(machine: Path, content: str) -> None:
    """Unknown is none."""
    (machine / "proc/meminfo").write_text(content)
    assert headroom_mib(machine) == 0
