"""The notes that a task has ended, and its snapshots are of the past."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from typing import TYPE_CHECKING

import attrs

from snaplib.errors import SnapshotDamaged
from snaplib.store import names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from snaplib.store.backend import Backend

__all__ = ["End", "Ends"]


def _strings(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


@attrs.frozen
class End:
    """The note that the task of a key has ended, and its snapshots are of the past.

    Attributes:
        ended_at: When: UTC, ISO 8601.
        exit_code: Its exit status; None where a signal ended it.
        signal: The signal that ended it.
        snapshots: The ids of the snapshots there were.
    """

    ended_at: str
    exit_code: int | None
    signal: int | None
    snapshots: tuple[str, ...] = attrs.field(converter=_strings)


class Ends:
    """The notes of one key.

    A note names the snapshots that it ends, rather than a time: clocks of two machines differ.

    Args:
        backend: Where they are.
        key: The key.
    """

    def __init__(self, backend: Backend, key: str) -> None:
        self._backend = backend
        self._folder = names.ends_folder(key)

    def add(
        self,
        exit_code: int | None,
        signal: int | None,
        snapshots: tuple[str, ...],
        now: dt.datetime,
    ) -> None:
        """Put a new note in place of the older ones.

        Args:
            exit_code: The task's exit status; None where a signal ended it.
            signal: The signal that ended it.
            snapshots: The ids of all snapshots of the key that there are.
            now: The time, with its zone.
        """
        before = sorted(self._backend.names(self._folder))
        newest = before[-1].rpartition("/")[2].removesuffix(".json") if before else None
        end = End(now.astimezone(dt.UTC).isoformat(), exit_code, signal, snapshots)
        name = f"{self._folder}/{names.new_id(now, newest)}.json"
        self._backend.put_new(name, json.dumps(attrs.asdict(end)).encode())
        for older in before:
            # What they name is named by the new one too, as far as it is still there.
            self._backend.delete(older)

    def last(self) -> End | None:
        """Return the newest note."""
        return max(self._all(), key=lambda end: end.ended_at, default=None)

    def snapshots(self) -> set[str]:
        """Return the ids of all snapshots that are of the past."""
        return {snapshot_id for end in self._all() for snapshot_id in end.snapshots}

    def _all(self) -> Iterator[End]:
        for name in sorted(self._backend.names(self._folder)):
            with contextlib.suppress(FileNotFoundError):
                try:
                    yield End(**json.loads(self._backend.get(name)))
                except (ValueError, TypeError) as error:
                    raise SnapshotDamaged(f"{name} is not what was written: {error}") from error
