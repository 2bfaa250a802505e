"""Dump and restore: preflight, the page server, and CRIU driven over its RPC protocol."""

from snaplib.checkpoint.deadline import Deadline
from snaplib.checkpoint.dumping import GHOST_LIMIT_BYTES, TCP_MODES, dump
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
