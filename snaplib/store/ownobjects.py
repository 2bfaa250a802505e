"""The objects of a snapshot that is being written, beside its segments: each put once, some of them aside."""

from __future__ import annotations

import contextlib
import io
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, TYPE_CHECKING

from snaplib.errors import StoreUnreachable, UsageError
from snaplib.store import names
from snaplib.store.objectio import HashingWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from snaplib.store.backend import Backend
    from snaplib.store.manifest import StoredObject

__all__ = ["OwnObjects"]

_BUFFER_BYTES = 1 << 20


class OwnObjects:
    """What a new snapshot has of objects so far.

    Args:
        backend: Where they go.
        snapshot_id: The snapshot's id.
    """

    def __init__(self, backend: Backend, snapshot_id: str) -> None:
        self._backend = backend
        self._id = snapshot_id
        self._objects: dict[str, StoredObject] = {}
        #: What is done beside the rest, and what of it has to be waited for.
        self._aside = ThreadPoolExecutor(2, "snaplib-aside")
        self._waiting: list[Future[None]] = []
        #: Objects that were to be deleted and are perhaps still there.
        self._left_over: set[str] = set()

    def put(self, name: str, write: Callable[[IO[bytes]], object]) -> None:
        """Store an object.

        Args:
            name: Its name.
            write: Writes it.

        Raises:
            UsageError: There is one of this name.
            StoreError: It could not be stored.
        """
        if name in self._objects:
            raise UsageError(f"the snapshot has an object {name} already")
        if name in self._left_over:
            self._delete(name)
        writer = self._backend.create(names.object_name(self._id, name))
        try:
            hashing = HashingWriter(writer)
            buffered = io.BufferedWriter(hashing, _BUFFER_BYTES)
            write(buffered)
            buffered.flush()
            writer.commit()
        except BaseException:
            writer.abort()
            raise
        self._objects[name] = hashing.stored()

    def add(self, name: str, stored: StoredObject) -> None:
        """Count an object in that somebody else stores."""
        self._objects[name] = stored

    def aside(self, work: Callable[..., None], *arguments: object) -> None:
        """Have something done beside the rest; `wait` tells what went wrong."""
        self._waiting.append(self._aside.submit(work, *arguments))

    def wait(self) -> None:
        """Wait for what is done aside.

        Raises:
            StoreError: It failed.
        """
        for done in self._waiting:
            done.result()

    def all(self) -> dict[str, StoredObject]:
        """Return what there is, by name."""
        return dict(sorted(self._objects.items()))

    def settle(self) -> None:
        """Wait until what is done aside is done or has failed."""
        for done in self._waiting:
            done.exception()
        self._waiting.clear()

    def retract(self, but: Iterable[str]) -> None:
        """Take all back; nothing may be done aside.

        Args:
            but: Names of those that stay in the store, though they count no more.
        """
        self._left_over |= self._objects.keys() - set(but)
        self._objects.clear()
        # If the store does not answer now, they are overwritten later.
        with contextlib.suppress(StoreUnreachable):
            for name in sorted(self._left_over):
                self._delete(name)

    def _delete(self, name: str) -> None:
        self._backend.delete(names.object_name(self._id, name))
        self._left_over.remove(name)

    def close(self) -> None:
        """Wait for what is done aside, whatever becomes of it; nothing can be put there any more."""
        self._aside.shutdown()
