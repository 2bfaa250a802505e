"""How much memory there is to be had: what the machine has, and what each cgroup above us allows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from snaplib.kernel.mounts import parse_cgroups

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["memory_headroom_bytes"]

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


def memory_headroom_bytes(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """Return how many bytes this process could use before something must be swapped or killed.

    Args:
        proc: Where procfs is mounted.
        cgroups: Where cgroups are mounted.

    Returns:
        The least of what the kernel calls available and of what is left in each cgroup that this process is in; what
        cannot be read is no bound, and 0 if the machine's own cannot.
    """
    try:
        words = (proc / "meminfo").read_text().split()
        bounds = [int(words[words.index("MemAvailable:") + 1]) << 10]
    except (OSError, ValueError, IndexError):
        return 0
    left = (_left_bytes(folder) for folder in _folders(proc, cgroups))
    bounds += [count for count in left if count is not None]
    return max(0, min(bounds))


def _folders(proc: Path, cgroups: Path) -> Iterator[Path]:
    """Yield the folders of the cgroups that may limit this process's memory, the innermost first."""
    try:
        memberships = parse_cgroups((proc / "self/cgroup").read_bytes())
    except (OSError, ValueError):
        return
    for one in memberships:
        if one.hierarchy_id == 0:
            roots = [cgroups, cgroups / "unified"]
        elif "memory" in one.controllers:
            roots = [cgroups / "memory"]
        else:
            continue
        inside = Path(one.path.lstrip("/"))
        for root in roots:
            yield from (root / part for part in (inside, *inside.parents))


def _left_bytes(folder: Path) -> int | None:
    """Return what a cgroup has left, counting what it can drop at once; None where it has no limit."""
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            most = int((folder / limit).read_text())
            used = int((folder / usage).read_text())
        except (OSError, ValueError):  # no such file, or "max"
            continue
        return most - used + _droppable_bytes(folder)
    return None


def _droppable_bytes(folder: Path) -> int:
    # Files in the page cache, without those of a tmpfs: they are on the other lists (Linux: mm/vmscan.c).
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
        fields = {name: int(value) for name, value in (line.split() for line in lines)}
    except (OSError, ValueError):
        return 0
    return fields.get("inactive_file", 0) + fields.get("active_file", 0)
