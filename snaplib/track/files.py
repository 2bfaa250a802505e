"""Whether a memfd may have been written other than through its mappings.

write(2), truncation and punched holes leave no trace in page tables, but set the times of the file.
So does a store to a protected page (fault_dirty_shared_page of the kernel's mm/memory.c); the two
cannot be told apart, unless no process of the task has the file open.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from snaplib.kernel import ProcFs
    from snaplib.track.areas import Area

__all__ = ["FileTimes"]

#: Two writes this close may leave the same time: two ticks of the slowest kernel clock (100 Hz).
_TICKS_NS = 20_000_000


@attrs.frozen
class _Seen:
    """When a file was written last, when that was seen, and whether any process had it open."""

    written_ns: int
    looked_ns: int
    is_open: bool


class FileTimes:
    """Remembers when the files that a process maps were last written.

    Args:
        procfs: Where the process is seen.
        pid: The process.
        members: Gives the pids of all processes of the task.
    """

    def __init__(self, procfs: ProcFs, pid: int, members: Callable[[], Iterable[int]]) -> None:
        self._root = procfs.root
        self._pid = pid
        self._members = members
        self._seen: dict[tuple[int, int], _Seen] = {}

    def note(self, area: Area) -> None:
        """Remember the time of the last write, and whether anyone can write."""
        written_ns, now_ns = self._times(area)
        if written_ns is not None:
            last = self._seen.get(area.file)
            # Once all have closed it there is nobody to get it from.
            is_open = (last is None or last.is_open) and any(
                self._holds(pid, area.file) for pid in self._members()
            )
            self._seen[area.file] = _Seen(written_ns, now_ns, is_open)

    def written(self, area: Area) -> bool:
        """Whether the file may have been written since `note`; True where nobody can tell."""
        written_ns, _ = self._times(area)
        last = self._seen.get(area.file)
        if written_ns is None or last is None:
            return True
        # A write right after the look may have got the very time that was seen.
        unchanged = written_ns == last.written_ns <= last.looked_ns - _TICKS_NS
        return last.is_open and not unchanged

    def _times(self, area: Area) -> tuple[int | None, int]:
        now_ns = time.time_ns()
        path = f"{self._root}/{self._pid}/map_files/{area.start:x}-{area.end:x}"
        try:
            found = os.stat(path)  # noqa: PTH116 - not worth a Path
        except OSError:
            return None, now_ns
        return max(found.st_mtime_ns, found.st_ctime_ns), now_ns

    def _holds(self, pid: int, file: tuple[int, int]) -> bool:
        try:
            with os.scandir(f"{self._root}/{pid}/fd") as entries:
                for entry in entries:
                    if os.readlink(entry.path).startswith("/memfd:"):  # noqa: PTH115
                        found = entry.stat()
                        if (found.st_dev, found.st_ino) == file:
                            return True
        except FileNotFoundError:
            # A descriptor that was just closed, or a process that just ended.
            return (self._root / str(pid)).exists()
        except OSError:
            return True
        return False
