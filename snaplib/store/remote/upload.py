"""Uploads: objects that go to a bucket in parts, while they are still being written."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from typing import TYPE_CHECKING, Any

from snaplib.errors import StoreError
from snaplib.store.grace import Grace
from snaplib.store.remote.link import LOOK_S, event_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from obstore.store import ObjectStore

    from snaplib.store.remote.link import Link

__all__ = ["Upload"]

#: How many parts are under way at once; one more is waiting, and one is being filled.
_AT_ONCE = 4
_WAITING = 1
#: How long an upload that is given up may take to say so.
_GIVE_UP_S = 5.0


class Upload:
    """A multipart upload under way.

    Args:
        link: The way to the store.
        store: Where to.
        name: The object's name.
        part_bytes: How large its parts are, but for the last.
    """

    def __init__(self, link: Link, store: ObjectStore, name: str, part_bytes: int) -> None:
        self._link = link
        self._store = store
        self._name = name
        self._part_bytes = part_bytes
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
                chunk_size=self._part_bytes,
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
