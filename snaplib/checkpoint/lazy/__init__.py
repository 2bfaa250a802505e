"""Lazy restore, seen from who restores: the process that serves the task's memory, and who must wait for it.

The process itself is `snaplib.checkpoint.lazypages`.
"""

from snaplib.checkpoint.lazy.helper import LazyHelper
from snaplib.checkpoint.lazy.pending import note_lazy, wait_for_memory

__all__ = ["LazyHelper", "note_lazy", "wait_for_memory"]
