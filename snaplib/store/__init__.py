"""Where snapshots are kept."""

from snaplib.store.index import PAGE_BYTES, Index, Space
from snaplib.store.manifest import Snapshot, StoredObject
from snaplib.store.pagelog import PageLogOptions, PageLogWriter
from snaplib.store.reader import PageLogReader
from snaplib.store.saved import SnapshotReader
from snaplib.store.snapshot import SnapshotWriter
from snaplib.store.store import End, Store

__all__ = [
    "PAGE_BYTES",
    "End",
    "Index",
    "PageLogOptions",
    "PageLogReader",
    "PageLogWriter",
    "Snapshot",
    "SnapshotReader",
    "SnapshotWriter",
    "Space",
    "Store",
    "StoredObject",
]
