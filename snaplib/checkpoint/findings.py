"""What is found out of a task while it stands still, and goes into the manifest of its snapshot."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs

from snaplib.checkpoint.describe import describe_host, describe_task
from snaplib.checkpoint.filekeeper import FilesBefore, keep_files
from snaplib.checkpoint.netlock import lock_name, locked_connections
from snaplib.checkpoint.network import Network
from snaplib.checkpoint.order import DumpOrder
from snaplib.checkpoint.streams import write_streams
from snaplib.checkpoint.written import WrittenFile, written_files
from snaplib.criu.connections import Connection
from snaplib.store import SnapshotWriter
from snaplib.task import Member

__all__ = ["Findings"]

#: How much of the deadline the standard streams' readers get to take what is under way.
_DRAIN_SHARE = 0.1
_DRAIN_MAX_S = 5.0


@attrs.define
class Findings:
    """What is found out of a task that stands still.

    Attributes:
        order: What is wanted of the dump.
        coming: The snapshot, which may still be being begun.
        files_before: What is in the store of the task's files; None where that is of no use.
        description: What the manifest says of the task, its host and its streams.
        members: Its processes.
        connections: Those that are locked.
    """

    order: DumpOrder
    coming: Future[SnapshotWriter]
    files_before: Future[FilesBefore] | None = None
    description: dict[str, Any] = attrs.field(factory=dict, init=False)
    members: tuple[Member, ...] = attrs.field(default=(), init=False)
    connections: tuple[Connection, ...] = attrs.field(default=(), init=False)
    _kept_files: dict[str, Any] = attrs.field(factory=dict, init=False)
    _written: list[WrittenFile] = attrs.field(factory=list, init=False)

    @classmethod
    def begin(cls, order: DumpOrder, coming: Future[SnapshotWriter]) -> Findings:
        """Get ready while the task still runs.

        Args:
            order: What is wanted.
            coming: The snapshot.
        """
        if order.files != "capture" and not order.capture:
            return cls(order, coming)
        # In a thread: the store may take its time, and the freeze is not to wait for it.
        pool = ThreadPoolExecutor(1, "snaplib-claim")
        claimed = pool.submit(lambda: FilesBefore.claimed(order.store, coming.result()))
        pool.shutdown(wait=False)
        return cls(order, coming, claimed)

    def close(self) -> None:
        """Wait for what is still being found out."""
        if self.files_before is not None:
            self.files_before.exception()

    def when_frozen(self) -> None:
        """Find out what CRIU's images do not tell."""
        order = self.order
        self.members = order.task.members()
        self.description = {"task": describe_task(order.task), "host": describe_host(order.criu)}
        if order.stand_in:
            pids = [member.pid for member in self.members]
            self._written = written_files(order.task.procfs, pids)

    def when_complete(self, images: Path) -> None:
        """Take the state of its streams and the contents of its files.

        Args:
            images: CRIU's images, complete.

        Raises:
            StoreError: Something could not be stored, or the store does not answer.
        """
        order, session = self.order, self.order.task.session
        writer = self.coming.result()
        if session:
            drain_s = min(_DRAIN_MAX_S, order.deadline.seconds * _DRAIN_SHARE)
            backlog, streams = session.drain(drain_s)
            self.description["streams"] = write_streams(writer, backlog, streams)
        self._kept_files = keep_files(
            writer,
            [member.pid for member in self.members],
            order.files,
            named=order.capture,
            before=self.files_before.result() if self.files_before is not None else None,
        )
        self.connections = locked_connections(order.criu, images)

    def more(self, images: Path) -> dict[str, Any]:
        """Return what the manifest says besides.

        Args:
            images: CRIU's images.
        """
        extra: dict[str, Any] = {"tcp": self.order.tcp}
        if self.connections:
            network = Network.here(self.connections, lock_name(images) or "")
            extra["network"] = network.record()
        if self.order.stand_in:
            # Those whose contents are kept are compared with them.
            listed = self._kept_files.get("files", ())
            kept = {one["path"] for one in listed if one["stream"] or one["parts"]}
            extra["ends_task"] = not self.order.leave_running
            extra["written"] = [attrs.asdict(one) for one in self._written if one.path not in kept]
        if self._kept_files.get("files"):
            extra["files"] = self._kept_files
        return extra
