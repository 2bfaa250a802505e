"""Backends that run out of room, or come to a halt, when they are told to."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from snaplib.errors import StoreFull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from snaplib.store.backend import Backend, Data, Hold, ObjectReader, ObjectWriter
    from snaplib.store.throughput import Throughput

__all__ = ["FailingBackend", "HaltingBackend"]


class FailingBackend:
    """A backend that runs out of room.

    Args:
        backend: Where to keep what there is room for.
        room_bytes: How many bytes can be written before every further write fails.
        error: Makes the error to fail with; the one of a full store by default.
    """

    def __init__(
        self,
        backend: Backend,
        room_bytes: int,
        error: Callable[[], Exception] = lambda: StoreFull("no room left in the store"),
    ) -> None:
        self._backend = backend
        self._room_bytes = room_bytes
        self._error = error
        self._lock = threading.Lock()

    def spend(self, count: int) -> None:
        """Take room away.

        Raises:
            Exception: There is not that much.
        """
        with self._lock:
            if count > self._room_bytes:
                self._room_bytes = 0
                raise self._error()
            self._room_bytes -= count

    def give(self, count: int) -> None:
        """Make room."""
        with self._lock:
            self._room_bytes += count

    @property
    def url(self) -> str:
        """The address of the backend."""
        return self._backend.url

    @property
    def address(self) -> str:
        """What opens the backend."""
        return self._backend.address

    @property
    def local(self) -> bool:
        """Whether the backend's bytes are on this machine."""
        return self._backend.local

    def limit_by(self, left_s: Callable[[], float] | None) -> None:
        """Pass the limit on."""
        self._backend.limit_by(left_s)

    def throughput(self) -> Throughput:
        """Return what the backend has measured."""
        return self._backend.throughput()

    def create(self, name: str, *, bulk: bool = False) -> ObjectWriter:
        """Begin a new object, whose writing may fail."""
        return _FailingWriter(self, self._backend.create(name, bulk=bulk))

    def put_new(self, name: str, data: bytes) -> None:
        """Write a small object, or fail."""
        self.spend(len(data))
        self._backend.put_new(name, data)

    def open(self, name: str, *, bulk: bool = False) -> ObjectReader:
        """Open an object."""
        return self._backend.open(name, bulk=bulk)

    def get(self, name: str) -> bytes:
        """Return the whole of a small object."""
        return self._backend.get(name)

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names of all objects under a folder."""
        return self._backend.names(prefix)

    def delete(self, name: str) -> None:
        """Delete an object."""
        self._backend.delete(name)

    def delete_folder(self, prefix: str) -> None:
        """Delete all objects under a folder."""
        self._backend.delete_folder(prefix)

    def hold(self, folder: str) -> Hold:
        """Mark a new folder as being written."""
        return self._backend.hold(folder)

    def delete_abandoned(self, prefix: str, keep: Callable[[str], bool]) -> list[str]:
        """Delete the folders that nobody holds."""
        return self._backend.delete_abandoned(prefix, keep)

    def free_bytes(self) -> int | None:
        """Return the room that is left."""
        return self._room_bytes


class HaltingBackend(FailingBackend):
    """A backend that takes nothing for as long as it is told so, and answers nobody meanwhile.

    Args:
        backend: Where to keep what it takes.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend, sys.maxsize)
        self._going, self._answering = threading.Event(), threading.Event()
        self._waiting = 0
        self.go_on()

    def halt(self, *, wholly: bool = False) -> None:
        """Take nothing from now on.

        Args:
            wholly: Nor do anything else, such as to look what there is.
        """
        self._going.clear()
        if wholly:
            self._answering.clear()

    def go_on(self) -> None:
        """Take everything again, also what has been waiting."""
        self._going.set()
        self._answering.set()

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return self._waiting

    def spend(self, count: int) -> None:
        """Wait until it goes on."""
        self._wait_for(self._going)
        super().spend(count)

    def _wait_for(self, event: threading.Event) -> None:
        with self._lock:
            self._waiting += 1
        event.wait()
        with self._lock:
            self._waiting -= 1

    def create(self, name: str, *, bulk: bool = False) -> ObjectWriter:
        """Begin a new object once it goes on."""
        self._wait_for(self._answering)
        return super().create(name, bulk=bulk)

    def open(self, name: str, *, bulk: bool = False) -> ObjectReader:
        """Open an object once it goes on."""
        self._wait_for(self._answering)
        return super().open(name, bulk=bulk)

    def get(self, name: str) -> bytes:
        """Return the whole of a small object once it goes on."""
        self._wait_for(self._answering)
        return super().get(name)

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names of all objects under a folder once it goes on."""
        self._wait_for(self._answering)
        return super().names(prefix)

    def delete(self, name: str) -> None:
        """Delete an object once it goes on."""
        self._wait_for(self._answering)
        super().delete(name)

    def delete_folder(self, prefix: str) -> None:
        """Delete all objects under a folder once it goes on."""
        self._wait_for(self._answering)
        super().delete_folder(prefix)

    def hold(self, folder: str) -> Hold:
        """Mark a new folder as being written once it goes on."""
        self._wait_for(self._answering)
        return super().hold(folder)

    def delete_abandoned(self, prefix: str, keep: Callable[[str], bool]) -> list[str]:
        """Delete the folders that nobody holds once it goes on."""
        self._wait_for(self._answering)
        return super().delete_abandoned(prefix, keep)


class _FailingWriter:
    def __init__(self, owner: FailingBackend, writer: ObjectWriter) -> None:
        self._owner = owner
        self._writer = writer

    @property
    def size_bytes(self) -> int:
        return self._writer.size_bytes

    def append(self, data: Data) -> int:
        self._owner.spend(len(data))
        return self._writer.append(data)

    def commit(self) -> None:
        self._writer.commit()

    def abort(self) -> None:
        self._writer.abort()
