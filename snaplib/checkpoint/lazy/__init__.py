"""Lazy restore: a task runs before its memory is there, and gets the pages it touches first.

CRIU's lazy-pages daemon answers the task's page faults, and fetches the rest when there are none.  It asks a page
server of ours, which reads from the store.  Both live in a process of their own: they must outlive whoever restored,
and end when the last page has come.
"""

from snaplib.checkpoint.lazy.helper import LazyHelper
from snaplib.checkpoint.lazy.pending import note_lazy, wait_for_memory
from snaplib.checkpoint.lazy.split import hot_frames, split_runs

__all__ = ["LazyHelper", "hot_frames", "note_lazy", "split_runs", "wait_for_memory"]
