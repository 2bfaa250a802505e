"""Folders for the files of a dump or a restore, which are gone afterwards, whoever is killed.

They are in ``$SNAPLIB_SCRATCH_DIR``, else in ``/var/tmp``, because ``/run`` is often a small tmpfs.  Each is 0700 and
locked (flock(2)) as long as it is in use.  What a process has left that was killed is removed by the next that ends a
use of its own, or that begins a run: never while a task stands still.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

from snaplib.errors import UsageError

__all__ = ["scratch_base", "scratch_dir", "sweep_scratch"]

_NAME = re.compile(r"snaplib-[a-z]+-[0-9a-f]{16}")
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def scratch_base() -> Path:
    """Return the folder that they are made in."""
    return Path(os.environ.get("SNAPLIB_SCRATCH_DIR", "/var/tmp"))


@contextlib.contextmanager
def scratch_dir(purpose: str, base: Path | None = None) -> Iterator[Path]:
    """Give a new 0700 folder, removed at the end, and with it those that others have left.

    Args:
        purpose: What it is for, in small letters; becomes part of its name.
        base: Where it is made; where all are by default.

    Raises:
        UsageError: It cannot be made.
    """
    where = scratch_base() if base is None else base
    try:
        path, descriptor = _make(where, purpose)
    except OSError as error:
        raise UsageError(
            f"no scratch folder can be made in {where}: {error.strerror}",
            hint="name another one in $SNAPLIB_SCRATCH_DIR",
        ) from error
    try:
        yield path
    finally:
        _remove(path)
        os.close(descriptor)
        sweep_scratch(where)


def sweep_scratch(base: Path | None = None) -> None:
    """Remove the folders of this user that nobody holds: whoever made them was killed.

    Args:
        base: Where to look; where all are made by default.
    """
    where = scratch_base() if base is None else base
    with contextlib.suppress(OSError):
        for name in os.listdir(where):  # noqa: PTH208 - mostly others', of which no more than the name is wanted
            if _NAME.fullmatch(name):
                _remove_if_left(where / name)


def _make(base: Path, purpose: str) -> tuple[Path, int]:
    """Make a folder and lock it; who sweeps may take one that is not locked yet, and then it is another."""
    while True:
        path = base / f"snaplib-{purpose}-{os.urandom(8).hex()}"
        path.mkdir(mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, _OPEN)
            if _lock(descriptor) is not False and path.exists():
                return path, descriptor
            os.close(descriptor)


def _remove_if_left(path: Path) -> None:
    try:
        descriptor = os.open(path, _OPEN)
    except OSError:
        return  # a link, a file, or gone
    try:
        if os.fstat(descriptor).st_uid == os.geteuid() and _lock(descriptor):
            _remove(path)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Return whether it is locked now; None where nobody can lock folders, as on NFS: there nothing is swept."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _remove(path: Path) -> None:
    import shutil  # noqa: PLC0415  a MB with what it imports, for dumps and restores only

    shutil.rmtree(path, ignore_errors=True)
