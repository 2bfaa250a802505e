"""A store's bytes in memory."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from snaplib.store.throughput import Throughput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from snaplib.store.backend import Data, Hold, ObjectReader, ObjectWriter

__all__ = ["MemoryBackend"]


class MemoryBackend:
    """Keeps objects in memory; give it to `snaplib.store.Store.over`.

    Attributes:
        objects: The content of each object, by its name; free to be looked at and damaged.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytearray] = {}
        self._held: set[str] = set()

    @property
    def url(self) -> str:
        """An address that cannot be opened."""
        return "memory://"

    @property
    def address(self) -> str:
        """An address that cannot be opened."""
        return self.url

    @property
    def local(self) -> bool:
        """Whether its bytes are on this machine."""
        return True

    def limit_by(self, left_s: Callable[[], float] | None) -> None:
        """Nothing here waits."""

    def throughput(self) -> Throughput:
        """Nothing is measured."""
        return Throughput()

    def create(self, name: str, *, bulk: bool = False) -> ObjectWriter:
        """Begin a new object."""
        del bulk
        return _MemoryWriter(self.objects, name)

    def put_new(self, name: str, data: bytes) -> None:
        """Write a small object if there is none of that name."""
        if name in self.objects:
            raise FileExistsError(name)
        self.objects[name] = bytearray(data)

    def open(self, name: str, *, bulk: bool = False) -> ObjectReader:
        """Open an object."""
        del bulk
        return _MemoryReader(self.get(name))

    def get(self, name: str) -> bytes:
        """Return the whole of an object."""
        try:
            return bytes(self.objects[name])
        except KeyError:
            raise FileNotFoundError(name) from None

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names of all objects under a folder."""
        return (name for name in list(self.objects) if not prefix or name.startswith(prefix + "/"))

    def delete(self, name: str) -> None:
        """Delete an object, if it is there."""
        self.objects.pop(name, None)

    def delete_folder(self, prefix: str) -> None:
        """Delete all objects under a folder."""
        for name in list(self.names(prefix)):
            del self.objects[name]

    def hold(self, folder: str) -> Hold:
        """Mark a new folder as being written."""
        self._held.add(folder)
        return _MemoryHold(self._held, folder)

    def delete_abandoned(self, prefix: str, keep: Callable[[str], bool]) -> list[str]:
        """Delete the folders that nobody holds."""
        folders = {name[len(prefix) + 1 :].split("/")[0] for name in self.names(prefix)}
        gone = [
            name
            for name in sorted(folders)
            if f"{prefix}/{name}" not in self._held and not keep(name)
        ]
        for name in gone:
            self.delete_folder(f"{prefix}/{name}")
        return gone

    def free_bytes(self) -> int | None:
        """There is no limit."""
        return None


class _MemoryWriter:
    def __init__(self, objects: dict[str, bytearray], name: str) -> None:
        self._lock = threading.Lock()
        self._objects = objects
        self._name = name
        objects[name] = self._content = bytearray()

    @property
    def size_bytes(self) -> int:
        return len(self._content)

    def append(self, data: Data) -> int:
        with self._lock:
            offset = len(self._content)
            self._content += data
        return offset

    def commit(self) -> None:
        pass

    def abort(self) -> None:
        self._objects.pop(self._name, None)


class _MemoryReader:
    seal_bytes = 0

    def __init__(self, content: bytes) -> None:
        self._content = content

    @property
    def size_bytes(self) -> int:
        return len(self._content)

    def read(self, offset: int, size: int) -> bytes:
        return self._content[offset : offset + size]

    def read_into(self, offset: int, room: memoryview, size: int) -> int:
        data = self.read(offset, size)
        room[: len(data)] = data
        return len(data)

    def close(self) -> None:
        pass


class _MemoryHold:
    def __init__(self, held: set[str], folder: str) -> None:
        self._held = held
        self._folder = folder

    @property
    def lost(self) -> bool:
        return False

    def check(self) -> None:
        pass

    def release(self) -> None:
        self._held.discard(self._folder)
