"""How much memory a process tree has resident, read cheaply."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["resident_bytes"]


def resident_bytes(pid: int, proc: Path = Path("/proc")) -> int:
    """Return how much memory a process tree has resident; pages that several of it have count for each.

    Args:
        pid: The root, as seen here; what has ended counts nothing.
        proc: Where procfs is.
    """
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    total, left = 0, [pid]
    while left:
        folder = proc / str(left.pop())
        with contextlib.suppress(OSError, ValueError, IndexError):
            total += int((folder / "statm").read_text().split()[1]) * page_bytes
            for thread in (folder / "task").iterdir():
                left += map(int, (thread / "children").read_text().split())
    return total
