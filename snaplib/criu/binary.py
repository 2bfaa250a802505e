"""The CRIU binary: where it is and what version it has."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import attrs

from snaplib.errors import CriuMissing, CriuTooOld

__all__ = ["MINIMUM_VERSION", "Criu", "find_criu"]

#: 3.17 cannot map the vdso of kernels since 6.13, 4.1 cannot dump INET sockets of 6.18, and the page-server
#: header grew to 32 bytes in 4.2.
MINIMUM_VERSION = (4, 2)

_VERSION_LINE = re.compile(r"^Version: (\d+)\.(\d+)(?:\.(\d+))?", re.MULTILINE)


@attrs.frozen
class Criu:
    """A CRIU binary.

    Attributes:
        path: The executable.
        version: What it says of itself, for example ``(4, 2, 1)``.
    """

    path: Path
    version: tuple[int, ...]

    @property
    def version_text(self) -> str:
        """The version as people write it: ``4.2.1``."""
        return ".".join(map(str, self.version))

    def python_paths(self) -> list[Path]:
        """Return the folders in which pycriu may lie, the one that belongs to this binary first."""
        prefix = self.path.parent.parent
        roots = [prefix, prefix / "usr", Path("/usr")]
        return [root / "lib/python3/dist-packages" for root in roots]


def find_criu() -> Criu:
    """Find the CRIU to use: ``$SNAPLIB_CRIU``, the one tools/setup installs beside this Python, else ``$PATH``.

    Raises:
        CriuMissing: There is none, or it does not run.
        CriuTooOld: It is older than `MINIMUM_VERSION`.
    """
    named = os.environ.get("SNAPLIB_CRIU")
    if named:
        candidates = [named]
    else:
        private = Path(sys.prefix) / "criu/sbin/criu"
        search = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
        candidates = [str(private), shutil.which("criu", path=search) or ""]
    for candidate in filter(None, candidates):
        if os.access(candidate, os.X_OK) and not Path(candidate).is_dir():
            return _checked(Path(candidate), Path(candidate).stat().st_mtime_ns)
    raise CriuMissing(
        f"$SNAPLIB_CRIU names {named}, which cannot be executed"
        if named
        else "CRIU is not installed"
    )


@cache
def _checked(path: Path, _mtime_ns: int) -> Criu:
    """Ask a binary for its version, once as long as it stays the same file."""
    try:
        answer = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CriuMissing(f"{path} does not run: {error}") from error
    found = _VERSION_LINE.search(answer.stdout)
    if not found:
        raise CriuMissing(
            f"{path} --version says nothing of a version: {answer.stdout or answer.stderr!r}"
        )
    version = tuple(int(part) for part in found.groups() if part is not None)
    if version < MINIMUM_VERSION:
        minimum = ".".join(map(str, MINIMUM_VERSION))
        raise CriuTooOld(f"{path} is CRIU {'.'.join(map(str, version))}, snaplib needs {minimum}")
    return Criu(path=path, version=version)
