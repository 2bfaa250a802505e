"""Objects in a bucket being written and read.

What is small is kept until it is complete and put at once.  What grows beyond a part goes as a multipart upload while
it is still being written; whoever writes waits when a few parts are under way, so memory stays bounded.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

from snaplib.errors import StoreError
from snaplib.store.bulk import buffers
from snaplib.store.grace import Grace
from snaplib.store.remote.link import LOOK_S, event_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from obstore.store import ObjectStore

    from snaplib.store.backend import Data
    from snaplib.store.remote.link import Link

__all__ = ["PART_BYTES", "RemoteObjectReader", "RemoteObjectWriter", "put"]

#: The size of a part, and how many are under way at once; one more is being filled.
PART_BYTES = 8 << 20
_AT_ONCE = 4
_WAITING = 1

#: How much is read at once where small pieces are asked for.
_READ_AHEAD_BYTES = 4 << 20
#: How long an upload that is given up may take to say so.
_GIVE_UP_S = 5.0


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
        self._upload: _Upload | None = None
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
            self._upload = _Upload(self._link, self._streaming, self._name)
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


class _Upload:
    """A multipart upload under way.

    Args:
        link: The way to the store.
        store: Where to.
        name: The object's name.
    """

    def __init__(self, link: Link, store: ObjectStore, name: str) -> None:
        self._link = link
        self._store = store
        self._name = name
        self._queue: asyncio.Queue[memoryview | None] = asyncio.Queue()
        self._room = threading.Condition()
        self._waiting = 0
        self._given_up = False
        self._future = asyncio.run_coroutine_threadsafe(self._run(), event_loop())
        self._future.add_done_callback(self._ended)

    def send(self, part: memoryview) -> None:
        """Hand over a part; waits while there are enough.

        Raises:
            StoreError: The upload has failed.
        """
        with self._room:
            ends_s, grace, ready = time.monotonic() + self._link.left_s(), Grace(), False
            while not ready and time.monotonic() < ends_s and not self._link.is_over(grace):
                ready = self._room.wait_for(
                    lambda: self._waiting < _WAITING or self._given_up or self._future.done(),
                    LOOK_S,
                )
            if self._given_up:
                raise StoreError(f"the upload of {self._name} was given up")
            if self._future.done():
                self._future.result()
            if not ready:
                raise self._too_slow()
            self._waiting += 1
        event_loop().call_soon_threadsafe(self._queue.put_nowait, part)

    def finish(self) -> None:
        """Wait until all of it is durable.

        Raises:
            StoreError: It is not.
        """
        event_loop().call_soon_threadsafe(self._queue.put_nowait, None)
        ends_s = time.monotonic() + self._link.left_s()
        grace = Grace()
        while not concurrent.futures.wait([self._future], LOOK_S).done:
            if time.monotonic() >= ends_s or self._link.is_over(grace):
                self.give_up()
                raise self._too_slow()
        self._future.result()

    def give_up(self) -> None:
        """End the upload; what was sent is thrown away, if the store can be told so."""
        with self._room:
            self._given_up = True
            self._room.notify_all()
        event_loop().call_soon_threadsafe(self._queue.put_nowait, None)
        concurrent.futures.wait([self._future], _GIVE_UP_S)
        self._future.cancel()

    def _too_slow(self) -> Exception:
        return self._link.translated(TimeoutError(), self._name, self._link.left_s())

    async def _run(self) -> None:
        import obstore  # noqa: PLC0415 - late: local stores do without

        try:
            await obstore.put_async(
                self._store,
                self._name,
                self._parts(),
                use_multipart=True,
                chunk_size=PART_BYTES,
                max_concurrency=_AT_ONCE,
            )
        except Exception as error:
            raise self._link.translated(error, self._name) from error

    async def _parts(self) -> AsyncIterator[memoryview]:
        while True:
            part = await self._queue.get()
            if self._given_up:
                # obstore tells the store to forget the parts when its source fails.
                raise StoreError(f"the upload of {self._name} was given up")
            if part is None:
                return
            await self._link.limiter.take(len(part))
            yield part
            # Asked for the next: that one is on its way.
            with self._room:
                self._waiting -= 1
                self._room.notify_all()

    def _ended(self, _future: Any) -> None:
        with self._room:
            self._room.notify_all()


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
