"""Dump and restore: preflight, the page server, and CRIU driven over its RPC protocol."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snaplib.checkpoint.connections import TCP_MODES
    from snaplib.checkpoint.deadline import Deadline
    from snaplib.checkpoint.dumping import dump
    from snaplib.checkpoint.dumprequest import GHOST_LIMIT_BYTES
    from snaplib.checkpoint.filekeeper import FILE_MODES
    from snaplib.checkpoint.restoring import restore
    from snaplib.checkpoint.taskfiles import CHANGED_FILES

__all__ = [
    "CHANGED_FILES",
    "FILE_MODES",
    "GHOST_LIMIT_BYTES",
    "TCP_MODES",
    "Deadline",
    "dump",
    "restore",
]

#: Public name -> the module it comes from: a task that is restored lazily waits for a process that needs hardly any.
_HOMES = {
    "CHANGED_FILES": "taskfiles",
    "FILE_MODES": "filekeeper",
    "GHOST_LIMIT_BYTES": "dumprequest",
    "TCP_MODES": "connections",
    "Deadline": "deadline",
    "dump": "dumping",
    "restore": "restoring",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        found = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
