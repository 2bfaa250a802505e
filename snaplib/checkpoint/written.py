"""Files that a task writes to, of a snapshot after which it ran on: brought back to what they were, or found changed.

CRIU compares only sizes.  A task that is resumed from such a snapshot would go on with files in which its own later
work, lost with its machine, is already written.  What was appended behind the end is cut off; anything else cannot be
undone, and is an error.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from snaplib.errors import RestoreFailed
from snaplib.kernel.procfs import ProcFs

__all__ = ["WrittenFile", "roll_back", "written_files"]


@attrs.frozen
class WrittenFile:
    """A file that was open for writing.

    Attributes:
        path: Its path, as the task sees it.
        size_bytes: Its size.
        modified_ns: When it was last written to.
        at_end: Whether all that was written to it was bound for its end.
    """

    path: str
    size_bytes: int
    modified_ns: int
    at_end: bool


def written_files(procfs: ProcFs, pids: Iterable[int]) -> list[WrittenFile]:
    """Return the regular files that stopped processes have open for writing, or mapped.

    Args:
        procfs: Where the processes are seen.
        pids: Which ones.
    """
    found: dict[str, WrittenFile] = {}
    for pid in pids:
        for descriptor in procfs.descriptors(pid):
            if descriptor.writable:
                entry = Path(f"/proc/{pid}/fd/{descriptor.fd}")
                appends = bool(descriptor.flags & os.O_APPEND)
                _add(found, descriptor.target, entry, descriptor.pos, appends=appends)
        for mapping in procfs.maps(pid):
            if mapping.shared and mapping.writable and mapping.path:
                # Where in a mapped file a task writes nobody can say.
                _add(found, mapping.path, Path(f"/proc/{pid}/root{mapping.path}"), -1)
    return list(found.values())


def _add(
    found: dict[str, WrittenFile], path: str, entry: Path, pos: int, *, appends: bool = False
) -> None:
    with contextlib.suppress(OSError):
        status = entry.stat()
        # One that has lost its name goes with the snapshot.
        if stat.S_ISREG(status.st_mode) and status.st_nlink:
            at_end = appends or pos == status.st_size
            known = found.get(path)
            found[path] = WrittenFile(
                path,
                status.st_size,
                status.st_mtime_ns,
                at_end and (known is None or known.at_end),
            )


def roll_back(files: Iterable[Mapping[str, Any]], root: Path = Path("/")) -> list[str]:
    """Bring files back to what they were.

    Args:
        files: `WrittenFile` records, as a manifest has them.
        root: Where their paths begin.

    Returns:
        The paths of those that were cut.

    Raises:
        RestoreFailed: One has changed otherwise; none was touched.
    """
    longer = []
    for one in (WrittenFile(**fields) for fields in files):
        path = root / one.path.lstrip("/")
        try:
            status = path.stat()
        except OSError:
            # CRIU says what it misses.
            continue
        if status.st_size == one.size_bytes and (
            one.at_end or status.st_mtime_ns == one.modified_ns
        ):
            continue
        if not one.at_end or status.st_size < one.size_bytes:
            raise RestoreFailed(
                f"{one.path} was changed after the snapshot was taken, and not only at its end",
                hint="bring it back to what it was, or run the command anew with --on-restore-failure restart",
            )
        longer.append((path, one.size_bytes))
    for path, size_bytes in longer:
        os.truncate(path, size_bytes)
    return [str(path) for path, _size_bytes in longer]
