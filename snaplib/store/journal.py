"""The journal of a key: how each run of its task began and ended, for counting attempts and for what it was worth.

A run is two small objects, one put when the task runs and one when the run is over.  A run without the second one was
cut off: its machine or its supervisor went away.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import attrs

from snaplib.errors import SnapshotDamaged
from snaplib.store import names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from snaplib.store.backend import Backend

__all__ = ["Journal", "RunRecord", "all_runs"]

_JOURNAL = "journal"
_BEGIN = ".begin.json"
_END = ".end.json"


def _words(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


@attrs.frozen
class RunRecord:
    """One run.

    Attributes:
        id: Ids of one key sort by time.
        key: Whose.
        began_at: When the task ran: UTC, ISO 8601.
        how: ``started``, ``restored`` or ``adopted``.
        snapshot: The snapshot it was restored from.
        host: The machine's name.
        command: What was run.
        ended_at: When the run was over; None if it was cut off, or goes on.
        outcome: ``saved``, ``ended``, ``killed`` or ``failed``; None likewise.
        exit_code: The task's exit status, where it ended with one.
        signal: The signal that ended it.
        saved_as: The snapshot it was saved as.
        alive_s: Seconds the task ran in this run.
        figures: Seconds, bytes and counts by name: ``restore_s``, ``window_s``, ``dump_s``, ``frozen_s``,
            ``memory_bytes``, ``stored_bytes``, ``dump_failures``, ``copies``, ``copy_s``, ``forecast_s``,
            ``forecast_bytes`` and what else is measured.
        source: Who gave notice.
    """

    id: str
    key: str
    began_at: str
    how: str
    snapshot: str | None = None
    host: str = ""
    command: tuple[str, ...] = attrs.field(default=(), converter=_words)
    ended_at: str | None = None
    outcome: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    saved_as: str | None = None
    alive_s: float = 0.0
    figures: Mapping[str, float] = attrs.field(factory=dict)
    source: str = ""

    @property
    def began(self) -> dt.datetime:
        """When it began, with its zone."""
        return dt.datetime.fromisoformat(self.began_at)


class Journal:
    """The runs of one key.

    Args:
        backend: Where they are.
        key: The key.
        clock: Tells the time, with its zone.
    """

    def __init__(self, backend: Backend, key: str, clock: Callable[[], dt.datetime]) -> None:
        self._backend = backend
        self._key = key
        self._clock = clock
        self._folder = f"{_JOURNAL}/{names.key_folder(key)}"

    def begin(
        self, how: str, *, snapshot: str | None, host: str, command: tuple[str, ...]
    ) -> RunRecord:
        """Return the record of a run that begins now; `put_begin` puts it.

        Args:
            how: ``started``, ``restored`` or ``adopted``.
            snapshot: What it was restored from.
            host: The machine's name.
            command: What is run.
        """
        now = self._clock()
        return RunRecord(
            id=names.new_id(now),
            key=self._key,
            began_at=now.astimezone(dt.UTC).isoformat(),
            how=how,
            snapshot=snapshot,
            host=host,
            command=command,
        )

    def put_begin(self, record: RunRecord) -> RunRecord:
        """Note that a run has begun.

        Returns:
            It, with an id that sorts behind those of the runs before, even if the clock was behind.

        Raises:
            StoreError: It could not be stored.
        """
        newest = max((run_id for run_id, _name in self._listed()), default="")
        if record.id <= newest:
            record = attrs.evolve(record, id=names.new_id(self._clock(), newest))
        self._put(record, _BEGIN)
        return record

    def put_end(self, record: RunRecord) -> None:
        """Note that a run is over.

        Raises:
            StoreError: It could not be stored.
        """
        ended_at = self._clock().astimezone(dt.UTC).isoformat()
        self._put(attrs.evolve(record, ended_at=ended_at), _END)

    def _put(self, record: RunRecord, suffix: str) -> None:
        data = json.dumps(attrs.asdict(record)).encode()
        self._backend.put_new(f"{self._folder}/{record.id}{suffix}", data)

    def _listed(self) -> Iterator[tuple[str, str]]:
        """Yield the id and the name of each object."""
        for name in self._backend.names(self._folder):
            run_id = name.rpartition("/")[2].removesuffix(_END).removesuffix(_BEGIN)
            # Whatever else somebody has put there is not ours.
            with contextlib.suppress(ValueError):
                names.time_of(run_id)
                yield run_id, name

    def runs(self) -> list[RunRecord]:
        """Return all runs, the oldest first.

        Raises:
            SnapshotDamaged: One is not what was written.
        """
        return _runs(self._backend, self._folder)

    def attempts(self) -> int:
        """Return how often the task was started or restored since it last ended."""
        count = 0
        for run in self.runs():
            if run.how != "adopted":
                count += 1
            if run.outcome == "ended":
                count = 0
        return count

    def outlived(self, snapshot_id: str) -> bool:
        """Return whether a task may have run on after a snapshot that was to end it.

        Whoever took it did not live to note that it was saved, or it has been resumed already.

        Args:
            snapshot_id: The snapshot.
        """
        # The run that took it is the last that began before; of one run the end sorts behind the beginning.
        listed = sorted(self._listed())
        before = [name for run_id, name in listed if run_id < snapshot_id]
        after = [name for run_id, name in listed if run_id > snapshot_id]
        taken_by = self._read(before[-1]) if before else None
        if taken_by is not None and taken_by.saved_as != snapshot_id:
            return True
        found = map(self._read, after)
        return any(one is not None and one.snapshot == snapshot_id for one in found)

    def _read(self, name: str) -> RunRecord | None:
        try:
            return _parsed(self._backend.get(name), name)
        except FileNotFoundError:
            return None


def all_runs(backend: Backend) -> list[RunRecord]:
    """Return the runs of all keys, the oldest first.

    Args:
        backend: Where they are.

    Raises:
        SnapshotDamaged: One is not what was written.
    """
    return sorted(_runs(backend, _JOURNAL), key=lambda run: run.id)


def _runs(backend: Backend, folder: str) -> list[RunRecord]:
    # The end's object holds all that the beginning's does, and sorts behind it.
    found: dict[tuple[str, str], RunRecord] = {}
    for name in sorted(backend.names(folder)):
        with contextlib.suppress(FileNotFoundError):
            record = _parsed(backend.get(name), name)
            found[record.key, record.id] = record
    return list(found.values())


def _parsed(data: bytes, name: str) -> RunRecord:
    try:
        fields: dict[str, Any] = json.loads(data)
        known = {field.name for field in attrs.fields(RunRecord)}
        # A newer snaplib may know more about a run.
        return RunRecord(**{name: value for name, value in fields.items() if name in known})
    except (ValueError, TypeError, AttributeError) as error:
        raise SnapshotDamaged(f"{name} is not what was written: {error}") from error
