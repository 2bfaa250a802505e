"""The library that lets an unmodified CRIU dump incrementally where the kernel has no soft-dirty bits.

It is preloaded into ``criu`` and answers its questions from userfaultfd write protection; ``softdirty.c`` beside this
module tells how.  It knows nothing of the task: a page whose mapping nobody has registered is dirty.  Whether CRIU
asks as the library expects is not known before it has been tried: use `snaplib.checkpoint.trusted_shim`.
"""

from __future__ import annotations

import os
import platform
import shutil
import stat
import subprocess
from pathlib import Path

import attrs
import blake3

from snaplib.criu.binary import Criu
from snaplib.errors import ShimUnusable, UsageError
from snaplib.runtime import cache_dir
from snaplib.scratch import scratch_dir

__all__ = ["Shim", "install_shim", "prepare_shim"]

_SOURCE = Path(__file__).with_name("softdirty.c")

#: Linked with no library: its few symbols come from whatever C library CRIU is run with.
_OPTIONS = (
    *("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror"),
    *("-fPIC", "-shared", "-nostdlib", "-fvisibility=hidden", "-fno-stack-protector"),
    *("-U_FORTIFY_SOURCE", "-Wl,-z,now", "-Wl,--build-id=none"),
)

_BUILD_TIMEOUT_S = 60.0

#: Separate names in LD_PRELOAD, and cannot be quoted there (ld.so(8)).
_SEPARATORS = frozenset(" :")


@attrs.frozen
class Shim:
    """The built library.

    Attributes:
        path: The file to preload.
        digest: Of what it was built from, in hexadecimal digits: another source is another shim.
    """

    path: Path
    digest: str

    def environment(self) -> dict[str, str]:
        """Return what `snaplib.criu.Swrk` is to put into CRIU's environment, and into no other process's."""
        return {"LD_PRELOAD": str(self.path)}


def prepare_shim(criu: Criu) -> Shim:
    """Return the library: the one tools/setup has built, one from the cache, or one that is built now.

    Args:
        criu: The binary it is for.

    Raises:
        ShimUnusable: There is none, and it cannot be built.
    """
    digest = _digest()
    installed = _installed(criu.path, digest)
    if installed.exists() and _trustworthy(installed) and _preloadable(installed):
        return Shim(installed, digest)
    try:
        cached = cache_dir("criu") / installed.name
    except UsageError as error:
        raise ShimUnusable(error.message, hint=error.hint) from error
    if not _preloadable(cached):
        raise ShimUnusable(
            f"a blank or a colon in {cached} keeps it from being preloaded",
            hint="name a folder without in $SNAPLIB_CACHE_DIR",
        )
    if not cached.exists():
        _build(cached)
    return Shim(cached, digest)


def _digest() -> str:
    told = "\0".join((*_OPTIONS, platform.machine()))
    try:
        return blake3.blake3(_SOURCE.read_bytes() + told.encode()).hexdigest(10)
    except OSError as error:
        raise ShimUnusable(
            f"the source of the preload library is missing: {error}", hint="install snaplib again"
        ) from error


def _installed(criu_path: Path, digest: str) -> Path:
    return criu_path.parent.parent / "lib" / "snaplib" / f"softdirty-{digest}.so"


def _preloadable(path: Path) -> bool:
    return _SEPARATORS.isdisjoint(str(path))


def _trustworthy(path: Path) -> bool:
    """Whether nobody can have put it there who could not have changed this program as well."""
    owners = {0, os.geteuid(), _SOURCE.stat().st_uid}
    for one in (path, path.parent):
        found = one.stat()
        if found.st_uid not in owners or stat.S_IMODE(found.st_mode) & 0o022:
            return False
    return True


def _build(path: Path) -> None:
    """Compile the library; it is there wholly or not at all, whoever else builds it now."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise ShimUnusable(
            "the preload library for CRIU is not built, and there is no C compiler",
            hint="run tools/setup, or apt-get install gcc libc6-dev",
        )
    try:
        with scratch_dir("build", path.parent) as folder:
            new = folder / path.name
            done = subprocess.run(
                [compiler, *_OPTIONS, "-o", str(new), str(_SOURCE)],
                capture_output=True,
                text=True,
                timeout=_BUILD_TIMEOUT_S,
                check=False,
            )
            if done.returncode:
                said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
                raise ShimUnusable(
                    f"{compiler} cannot build the preload library for CRIU: {said[0]}",
                    hint="apt-get install gcc libc6-dev",
                )
            new.chmod(0o755)
            new.replace(path)
    except (UsageError, OSError, subprocess.TimeoutExpired) as error:
        raise ShimUnusable(f"the preload library for CRIU cannot be built: {error}") from error


def install_shim(criu_path: Path) -> None:
    """Build the library beside a CRIU, where `prepare_shim` looks first; tools/setup calls this.

    Args:
        criu_path: The binary.

    Raises:
        ShimUnusable: It cannot be built.
    """
    path = _installed(criu_path, _digest())
    if path.exists():
        return
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.parent.chmod(0o755)
    _build(path)
    for old in path.parent.glob("softdirty-*.so"):
        if old != path:
            old.unlink(missing_ok=True)
