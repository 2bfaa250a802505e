"""The standard streams' part of a snapshot: what was under way, and output files that the shell would empty."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from snaplib.session import Backlog, StreamsRecord
from snaplib.store import SnapshotReader, SnapshotWriter

__all__ = ["CAPTURE_LIMIT_BYTES", "read_streams", "write_streams"]

#: An output file is kept in the snapshot up to this size.
CAPTURE_LIMIT_BYTES = 256 << 20

_PREFIX = "streams-"


def write_streams(
    writer: SnapshotWriter, backlog: Backlog, streams: StreamsRecord
) -> dict[str, Any]:
    """Store what belongs to a task's standard streams.

    Args:
        writer: The snapshot's.
        backlog: What was under way when the task was stopped.
        streams: What the streams are.

    Returns:
        The manifest's field ``streams``.
    """
    for name, content in _backlog_objects(backlog).items():
        writer.put_stream(name, io.BytesIO(content))
    captured = []
    for source in streams.capture_sources():
        if source.length_bytes > CAPTURE_LIMIT_BYTES:
            continue
        with Path(source.path).open("rb") as file:
            file.seek(source.offset_bytes)
            limited = io.BufferedReader(_Limited(file, source.length_bytes))
            writer.put_stream(f"{_PREFIX}file-{source.stream}", limited)
        captured.append(source.stream)
    return {
        **streams.to_json(),
        "inputs": sorted(backlog.inputs),
        "outputs": sorted(backlog.outputs),
        "captured": captured,
    }


def read_streams(
    reader: SnapshotReader,
) -> tuple[StreamsRecord, Backlog, dict[int, IO[bytes]]]:
    """Return what `write_streams` stored: the record, the backlog, and captured files by stream."""
    found: Mapping[str, Any] = reader.snapshot.streams
    if not found:
        return StreamsRecord(()), Backlog(), {}
    backlog = Backlog(
        inputs={stream: _read(reader, f"{_PREFIX}in-{stream}") for stream in found["inputs"]},
        outputs={stream: _read(reader, f"{_PREFIX}out-{stream}") for stream in found["outputs"]},
    )
    captured = {
        stream: reader.open_stream(f"{_PREFIX}file-{stream}") for stream in found["captured"]
    }
    return StreamsRecord.from_json(found), backlog, captured


def _backlog_objects(backlog: Backlog) -> dict[str, bytes]:
    inputs = {f"{_PREFIX}in-{stream}": content for stream, content in backlog.inputs.items()}
    outputs = {f"{_PREFIX}out-{stream}": content for stream, content in backlog.outputs.items()}
    return inputs | outputs


def _read(reader: SnapshotReader, name: str) -> bytes:
    with reader.open_stream(name) as stream:
        return stream.read()


class _Limited(io.RawIOBase):
    """The next so many bytes of a file.

    Args:
        file: The file, at its position.
        length_bytes: How many.
    """

    def __init__(self, file: IO[bytes], length_bytes: int) -> None:
        self._file = file
        self._left = length_bytes

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, room: Any) -> int:
        """Read into a buffer."""
        data = self._file.read(min(len(room), self._left))
        self._left -= len(data)
        room[: len(data)] = data
        return len(data)
