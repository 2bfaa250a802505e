"""Where snaplib keeps what lives only as long as this machine is up: locks, sockets, records of running tasks.

The folder is ``$SNAPLIB_RUNTIME_DIR``, else ``/run/snaplib`` for root and ``$XDG_RUNTIME_DIR/snaplib`` (else
``/tmp/snaplib-UID``) for anybody else.  It is 0700: a control socket in it gives power over a task.
Scratch space for CRIU's images is elsewhere, see `snaplib.scratch`.  What is made once and kept (compiled programs) is
in ``$SNAPLIB_CACHE_DIR``, else ``$XDG_CACHE_HOME/snaplib``, else ``~/.cache/snaplib``.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from snaplib.errors import UsageError

__all__ = ["cache_dir", "runtime_dir", "state_dir"]


def runtime_dir() -> Path:
    """Return the runtime folder, made if need be.

    Raises:
        UsageError: Someone else owns it, or others may write to it.
    """
    named = os.environ.get("SNAPLIB_RUNTIME_DIR")
    if named:
        path = Path(named)
    elif os.geteuid() == 0:
        path = Path("/run/snaplib")
    elif os.environ.get("XDG_RUNTIME_DIR"):
        path = Path(os.environ["XDG_RUNTIME_DIR"]) / "snaplib"
    else:
        import tempfile  # noqa: PLC0415  half a MB that few need

        path = Path(tempfile.gettempdir()) / f"snaplib-{os.geteuid()}"
    return _ours_alone(path, "runtime", "SNAPLIB_RUNTIME_DIR")


def cache_dir(name: str) -> Path:
    """Return a folder of the cache, made if need be.  It is 0700: what is in it is executed.

    Args:
        name: What is kept in it.

    Raises:
        UsageError: Someone else owns it, or others may write to it, or it cannot be made.
    """
    return _ours_alone(_of_user("CACHE", "~/.cache") / name, "cache", "SNAPLIB_CACHE_DIR")


def state_dir() -> Path:
    """Return the folder of what is learned over time, made if need be: ``$SNAPLIB_STATE_DIR``, else
    ``$XDG_STATE_HOME/snaplib``, else ``~/.local/state/snaplib``.

    Raises:
        UsageError: Someone else owns it, or others may write to it, or it cannot be made.
    """
    return _ours_alone(_of_user("STATE", "~/.local/state"), "state", "SNAPLIB_STATE_DIR")


def _of_user(what: str, home: str) -> Path:
    if named := os.environ.get(f"SNAPLIB_{what}_DIR"):
        return Path(named)
    return Path(os.environ.get(f"XDG_{what}_HOME") or home).expanduser() / "snaplib"


def _ours_alone(path: Path, kind: str, variable: str) -> Path:
    hint = f"name another one in ${variable}"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except OSError as error:
        raise UsageError(
            f"the {kind} folder {path} cannot be used: {error.strerror}", hint=hint
        ) from error
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
        raise UsageError(f"the {kind} folder {path} is not only ours to write", hint=hint)
    return path
