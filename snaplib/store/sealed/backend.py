"""A backend that encrypts what it gives to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snaplib.store.sealed.bulk import SealedBulkReader, SealedBulkWriter
from snaplib.store.sealed.objects import SealedReader, SealedWriter, open_whole, seal_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from snaplib.store.backend import Backend, Hold, ObjectReader, ObjectWriter
    from snaplib.store.sealed.seal import Seal
    from snaplib.store.throughput import Throughput

__all__ = ["SealedBackend"]


class SealedBackend:
    """Encrypts objects, and the names that would tell something.

    Names that it lists are those in the store, and are understood like the others.

    Args:
        backend: Where the encrypted objects are.
        seal: The store's keys.
    """

    def __init__(self, backend: Backend, seal: Seal) -> None:
        self._backend = backend
        self.seal = seal

    @property
    def url(self) -> str:
        """The address."""
        return self._backend.url

    @property
    def address(self) -> str:
        """What opens it again, with the key."""
        return self._backend.address

    @property
    def local(self) -> bool:
        """Whether its bytes are on this machine."""
        return self._backend.local

    def limit_by(self, left_s: Callable[[], float] | None) -> None:
        """Give up what is not done in time."""
        self._backend.limit_by(left_s)

    def throughput(self) -> Throughput:
        """Return how fast it has been so far."""
        return self._backend.throughput()

    def create(self, name: str, *, bulk: bool = False) -> ObjectWriter:
        """Begin a new object."""
        name = self.seal.name(name)
        writer = self._backend.create(name, bulk=bulk)
        seal = self.seal.object(name)
        return SealedBulkWriter(writer, seal) if bulk else SealedWriter(writer, seal)

    def put_new(self, name: str, data: bytes) -> None:
        """Write a small object, if there is none of that name."""
        name = self.seal.name(name)
        self._backend.put_new(name, seal_whole(self.seal.object(name), data))

    def open(self, name: str, *, bulk: bool = False) -> ObjectReader:
        """Open an object."""
        name = self.seal.name(name)
        reader = self._backend.open(name, bulk=bulk)
        seal = self.seal.object(name)
        return SealedBulkReader(reader, seal) if bulk else SealedReader(reader, seal)

    def get(self, name: str) -> bytes:
        """Return the whole of a small object."""
        name = self.seal.name(name)
        return open_whole(self.seal.object(name), self._backend.get(name))

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names of all objects under a folder, as they are in the store."""
        return self._backend.names(self.seal.name(prefix))

    def delete(self, name: str) -> None:
        """Delete an object, if it is there."""
        self._backend.delete(self.seal.name(name))

    def delete_folder(self, prefix: str) -> None:
        """Delete all objects under a folder."""
        self._backend.delete_folder(self.seal.name(prefix))

    def hold(self, folder: str) -> Hold:
        """Mark a new folder as being written."""
        return self._backend.hold(self.seal.name(folder))

    def delete_abandoned(self, prefix: str, keep: Callable[[str], bool]) -> list[str]:
        """Delete the folders that nobody holds."""
        return self._backend.delete_abandoned(self.seal.name(prefix), keep)

    def free_bytes(self) -> int | None:
        """How much more can be stored."""
        return self._backend.free_bytes()
