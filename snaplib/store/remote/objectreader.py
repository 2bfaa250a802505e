"""Objects in a bucket being read."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from snaplib.errors import StoreError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

    from snaplib.store.remote.link import Link

__all__ = ["RemoteObjectReader"]

#: How much is read at once where small pieces are asked for.
_READ_AHEAD_BYTES = 4 << 20


class RemoteObjectReader:
    """An object open for reading; any thread may read.

    Args:
        link: The way to the store.
        store: Where it is.
        name: Its name.
        size_bytes: Its size.
    """

    #: Nothing is added to what is written.
    seal_bytes = 0

    def __init__(self, link: Link, store: ObjectStore, name: str, size_bytes: int) -> None:
        self._link = link
        self._store = store
        self._name = name
        self._size_bytes = size_bytes
        self._lock = threading.Lock()
        self._ahead_at = 0
        self._ahead: Any = b""

    @property
    def size_bytes(self) -> int:
        """The object's size when it was opened."""
        return self._size_bytes

    def read(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes from ``offset``, fewer only where the object ends before."""
        size = max(0, min(size, self._size_bytes - offset))
        if size >= _READ_AHEAD_BYTES:
            return bytes(self._range(offset, size))
        with self._lock:
            inside = offset - self._ahead_at
            if inside < 0 or inside + size > len(self._ahead):
                wanted = min(_READ_AHEAD_BYTES, self._size_bytes - offset)
                self._ahead = memoryview(self._range(offset, wanted)) if size else b""
                self._ahead_at, inside = offset, 0
            return bytes(self._ahead[inside : inside + size])

    def read_into(self, offset: int, room: memoryview, size: int) -> int:
        """Read ``size`` bytes and return how many there are: fewer only where the object ends."""
        size = max(0, min(size, self._size_bytes - offset))
        if size:
            room[:size] = memoryview(self._range(offset, size))
        return size

    def _range(self, offset: int, size: int) -> Any:
        import obstore  # noqa: PLC0415 - late: local stores do without

        async def attempt() -> Any:
            with self._link.meter.receiving(size):
                return await obstore.get_range_async(
                    self._store, self._name, start=offset, length=size
                )

        data = self._link.run(attempt, self._name)
        if len(data) != size:
            raise StoreError(f"{self._name}: {len(data)} bytes at {offset} instead of {size}")
        return data

    def close(self) -> None:
        """Forget what was read ahead; may be called again."""
        self._ahead = b""
