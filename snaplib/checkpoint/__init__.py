"""Dump and restore: preflight, the page server, and CRIU driven over its RPC protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snaplib.late import late

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

#: A task that is restored lazily waits for a process that needs hardly any of these.
__getattr__, __dir__ = late(
    __name__,
    {
        "CHANGED_FILES": ".taskfiles",
        "FILE_MODES": ".filekeeper",
        "GHOST_LIMIT_BYTES": ".dumprequest",
        "TCP_MODES": ".connections",
        "Deadline": ".deadline",
        "dump": ".dumping",
        "restore": ".restoring",
    },
)
