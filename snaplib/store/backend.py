"""What a store needs from the place that keeps its bytes: objects with unique names, written once.

The interface is that of an object store, so that a folder and a bucket look the same from above.
Nothing is renamed or changed in place, and the one thing that must not happen twice, a manifest, is
put on the condition that its name is new.  Names are relative, with slashes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from snaplib.store.throughput import Throughput

__all__ = ["Backend", "Data", "Hold", "ObjectReader", "ObjectWriter"]

#: What can be written: anything with the buffer interface that we use (`collections.abc.Buffer` is
#: Python 3.12).
Data = bytes | bytearray | memoryview


class ObjectWriter(Protocol):
    """An object being written; invisible to readers that go by manifests."""

    @property
    def size_bytes(self) -> int:
        """How many bytes have been appended."""

    def append(self, data: Data) -> int:
        """Append bytes and return the offset they are at.  Any thread may call this at any time.

        Raises:
            StoreFull: There is no room left.
            StoreError: The bytes could not be written.
        """

    def commit(self) -> None:
        """Make everything appended durable, and close."""

    def abort(self) -> None:
        """Close and forget the object; never raises, and may follow anything."""


class ObjectReader(Protocol):
    """An object open for reading; any thread may read."""

    @property
    def seal_bytes(self) -> int:
        """How many bytes follow each piece of a bulk object that are not of it: those of its encryption."""

    @property
    def size_bytes(self) -> int:
        """The object's size."""

    def read(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes from ``offset``, fewer only where the object ends before."""

    def read_into(self, offset: int, room: memoryview, size: int) -> int:
        """Read ``size`` bytes and return how many there are: fewer only where the object ends.

        Args:
            offset: From where.
            room: Where to; page-aligned and of whole pages.  What is behind the bytes may change.
            size: How many bytes.
        """

    def close(self) -> None:
        """Free what the reader holds."""


class Hold(Protocol):
    """The mark that a folder is being written."""

    @property
    def lost(self) -> bool:
        """Whether it is known already that the mark does not hold any more."""

    def check(self) -> None:
        """Make sure that the mark still holds; called when the folder's manifest has been put.

        Raises:
            StoreError: Another writer took this one for dead, and removes the folder.
        """

    def release(self) -> None:
        """Take the mark away; may be called again."""


class Backend(Protocol):
    """A place that keeps objects."""

    @property
    def url(self) -> str:
        """The address, as a user would write it."""

    @property
    def address(self) -> str:
        """What opens it again, in another process too."""

    @property
    def local(self) -> bool:
        """Whether its bytes are on this machine, and go when it does."""

    def limit_by(self, left_s: Callable[[], float] | None) -> None:
        """Give up what is not done in time, where the place can keep us waiting.

        Args:
            left_s: Tells how many seconds are left; None takes the limit away.
        """

    def throughput(self) -> Throughput:
        """Return how fast it has been so far."""

    def create(self, name: str, *, bulk: bool = False) -> ObjectWriter:
        """Begin a new object.

        Args:
            name: Its name, which must be unused.
            bulk: It gets few and large pieces; they may be put at offsets that leave zeros between
                them.
        """

    def put_new(self, name: str, data: bytes) -> None:
        """Write a small object durably and atomically, if there is none of that name.

        Raises:
            FileExistsError: There is one.
        """

    def open(self, name: str, *, bulk: bool = False) -> ObjectReader:
        """Open an object.

        Args:
            name: Its name.
            bulk: It was created as ``bulk`` and the same pieces will be read.

        Raises:
            FileNotFoundError: There is none of that name.
        """

    def get(self, name: str) -> bytes:
        """Return the whole of a small object.

        Raises:
            FileNotFoundError: There is none of that name.
        """

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names of all objects under a folder, in no particular order."""

    def delete(self, name: str) -> None:
        """Delete an object, if it is there."""

    def delete_folder(self, prefix: str) -> None:
        """Delete all objects under a folder, if there are any; its name is free at once."""

    def hold(self, folder: str) -> Hold:
        """Make a new folder, marked as being written until released or this process dies."""

    def delete_abandoned(self, prefix: str, keep: Callable[[str], bool]) -> list[str]:
        """Delete the folders in ``prefix`` that nobody holds.

        Args:
            prefix: The folder that holds them.
            keep: Whether to keep a folder, given its name; asked only once it is sure that nobody
                holds it.

        Returns:
            The names of those deleted.
        """

    def free_bytes(self) -> int | None:
        """How much more can be stored; None where there is no such limit."""
