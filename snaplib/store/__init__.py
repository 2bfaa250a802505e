"""Where snapshots are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snaplib.late import late

if TYPE_CHECKING:
    from snaplib.store.ends import End
    from snaplib.store.index import PAGE_BYTES, Index, Space
    from snaplib.store.journal import Journal, RunRecord
    from snaplib.store.loggedpages import LoggedPages
    from snaplib.store.logoptions import PageLogOptions
    from snaplib.store.manifest import Borrowed, Segment, Snapshot, StoredObject
    from snaplib.store.pagelog import PageLogWriter
    from snaplib.store.parent import Parent
    from snaplib.store.reader import PageLogReader
    from snaplib.store.runs import RunSet
    from snaplib.store.saved import SnapshotReader
    from snaplib.store.snapshot import SnapshotWriter
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

#: Who reads does without what writes.
__getattr__, __dir__ = late(
    __name__,
    {
        "PAGE_BYTES": ".index",
        "Borrowed": ".manifest",
        "End": ".ends",
        "Finding": ".verify",
        "Index": ".index",
        "Journal": ".journal",
        "LoggedPages": ".loggedpages",
        "PageLogOptions": ".logoptions",
        "PageLogReader": ".reader",
        "PageLogWriter": ".pagelog",
        "Parent": ".parent",
        "RunRecord": ".journal",
        "RunSet": ".runs",
        "Segment": ".manifest",
        "Snapshot": ".manifest",
        "SnapshotReader": ".saved",
        "SnapshotWriter": ".snapshot",
        "Space": ".index",
        "Store": ".store",
        "StoredObject": ".manifest",
        "Throughput": ".throughput",
        "Verification": ".verify",
    },
)
