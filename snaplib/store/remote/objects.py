"""Objects in a bucket being written.

What is small is kept until it is complete and put at once.  What grows beyond a part goes as a multipart upload while
it is still being written; whoever writes waits when a few parts are under way, so memory stays bounded.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from snaplib.errors import StoreError
from snaplib.store.bulk import buffers
from snaplib.store.remote.upload import Upload

if TYPE_CHECKING:
    from obstore.store import ObjectStore

    from snaplib.store.backend import Data
    from snaplib.store.remote.link import Link

__all__ = ["PART_BYTES", "RemoteObjectWriter", "put"]

#: The size of a part.
PART_BYTES = 8 << 20


def put(link: Link, store: ObjectStore, name: str, data: Data) -> None:
    """Put an object in one request.

    Raises:
        StoreError: It could not be put.
    """
    import obstore  # noqa: PLC0415 - late: local stores do without

    async def attempt() -> None:
        with link.meter.sending(len(data)):
            await obstore.put_async(store, name, data, use_multipart=False)

    link.run(attempt, name, sent_bytes=len(data))


class RemoteObjectWriter:
    """An object being written; any thread may append.

    Args:
        link: The way to the store.
        store: Where small objects are put.
        streaming: The same place, for uploads whose parts nobody can send again.
        name: The object's name.
    """

    def __init__(self, link: Link, store: ObjectStore, streaming: ObjectStore, name: str) -> None:
        self._link = link
        self._store = store
        self._streaming = streaming
        self._name = name
        self._lock = threading.Lock()
        #: Mappings of their own: what the allocator keeps of parts would be more than they are.
        self._part = memoryview(b"")
        self._fill = 0
        self._size_bytes = 0
        self._upload: Upload | None = None
        self._committed = False
        self._aborted = False

    @property
    def size_bytes(self) -> int:
        """How many bytes have been appended."""
        return self._size_bytes

    def append(self, data: Data) -> int:
        """Append bytes and return the offset they are at."""
        view = memoryview(data).cast("B")
        with self._lock:
            if self._aborted:
                raise StoreError(f"the writing of {self._name} was given up")
            offset = self._size_bytes
            self._size_bytes += len(view)
            while view:
                if not self._part:
                    (self._part,) = buffers(1, PART_BYTES)
                count = min(len(view), PART_BYTES - self._fill)
                self._part[self._fill : self._fill + count] = view[:count]
                self._fill += count
                view = view[count:]
                if view and self._fill == PART_BYTES:
                    self._ship()
        return offset

    def _ship(self) -> None:
        """Send the part that is full."""
        part = self._taken()
        if self._upload is None:
            self._upload = Upload(self._link, self._streaming, self._name, PART_BYTES)
        self._upload.send(part)

    def _taken(self) -> memoryview:
        part, self._part = self._part[: self._fill], memoryview(b"")
        self._fill = 0
        return part

    def commit(self) -> None:
        """Make everything appended durable, and close."""
        with self._lock:
            part = self._part[: self._fill]
            if self._upload is None:
                put(self._link, self._store, self._name, part)
            else:
                self._upload.send(part)
                self._upload.finish()
            self._taken()
            self._committed = True

    def abort(self) -> None:
        """Forget the object."""
        if self._aborted:
            return
        self._aborted = True
        if self._upload is not None:
            # Not under the lock: somebody may wait in it for the upload.
            self._upload.give_up()
        if self._committed:
            import obstore  # noqa: PLC0415 - loaded already

            with contextlib.suppress(StoreError):
                self._link.run(lambda: obstore.delete_async(self._store, self._name), self._name)
