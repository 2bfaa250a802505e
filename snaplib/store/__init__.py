"""Where snapshots are kept."""

from snaplib.store.ends import End
from snaplib.store.index import PAGE_BYTES, Index, Space
from snaplib.store.journal import Journal, RunRecord
from snaplib.store.manifest import Borrowed, Segment, Snapshot, StoredObject
from snaplib.store.pagelog import LoggedPages, PageLogOptions, PageLogWriter
from snaplib.store.reader import PageLogReader
from snaplib.store.runs import RunSet
from snaplib.store.saved import SnapshotReader
from snaplib.store.snapshot import Parent, SnapshotWriter
from snaplib.store.store import Store
from snaplib.store.throughput import Throughput
from snaplib.store.verify import Finding, Verification

__all__ = [
    "PAGE_BYTES",
    "Borrowed",
    "End",
    "Finding",
    "Index",
    "Journal",
    "LoggedPages",
    "PageLogOptions",
    "PageLogReader",
    "PageLogWriter",
    "Parent",
    "RunRecord",
    "RunSet",
    "Segment",
    "Snapshot",
    "SnapshotReader",
    "SnapshotWriter",
    "Space",
    "Store",
    "StoredObject",
    "Throughput",
    "Verification",
]
