"""Finds the program of a command as execvp(3) would, so that a wrong one is told before anything is started."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from snaplib.errors import CommandNotExecutable, CommandNotFound

__all__ = ["locate"]


def locate(name: str, *, cwd: Path, environment: Mapping[str, str]) -> Path:
    """Return the program that `name` stands for.

    Args:
        name: The first word of the command.
        cwd: Where the task will start: relative paths, also those in PATH, count from there.
        environment: The task's; its PATH is searched.

    Raises:
        CommandNotFound: There is none.
        CommandNotExecutable: There is something of that name, but it cannot be executed.
    """
    if not name:
        raise CommandNotFound("the command is empty", hint="name a program to run")
    if "/" in name:
        candidates = [cwd / name]
    else:
        places = environment.get("PATH", os.defpath).split(os.pathsep)
        candidates = [cwd / (place or ".") / name for place in places]
    refused: Path | None = None
    for path in candidates:
        try:
            mode = path.stat().st_mode
        except PermissionError:
            refused = refused or path
            continue
        except OSError:
            continue
        if stat.S_ISREG(mode) and os.access(path, os.X_OK):
            return path
        refused = refused or path
    if refused is None:
        raise CommandNotFound(
            f"{name}: command not found",
            hint="check its spelling" if "/" in name else "check its spelling and $PATH",
        )
    if not os.access(refused.parent, os.X_OK):
        raise CommandNotExecutable(
            f"{name}: {refused.parent} may not be searched", hint="run it as another user"
        )
    if refused.is_dir():
        raise CommandNotExecutable(f"{name}: {refused} is a directory", hint="name a program in it")
    raise CommandNotExecutable(
        f"{name}: {refused} is not executable", hint=f"try `chmod +x {refused}`"
    )
