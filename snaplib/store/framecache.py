"""Frames by demand: fetched ahead by several threads, the last ones kept."""

from __future__ import annotations

import collections
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from snaplib.errors import SnapshotDamaged, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from snaplib.store.backend import Data

__all__ = ["FrameCache"]

_THREADS = 4
_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0
#: How often a frame is read again whose checksum is wrong: the network's fault passes, the store's does not.
_DAMAGED_READS = 3


class FrameCache:
    """Keeps the frames that were asked for last.

    What cannot be read is tried again, for as long as it takes: whoever waits is a task with nothing else to do.

    Args:
        load: Reads a frame; several threads call it.
        most: How many frames to keep.
        kept: Frames to keep besides, once they were fetched.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        load: Callable[[int], Data],
        most: int = 12,
        kept: Collection[int] = (),
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._load = load
        self._kept = frozenset(kept)
        self._most = max(most, 2)
        self._sleep = sleep
        self._lock = threading.Lock()
        self._frames: collections.OrderedDict[int, Future[Data]] = collections.OrderedDict()
        self._kept_frames: dict[int, Future[Data]] = {}
        self._threads = ThreadPoolExecutor(_THREADS, "snaplib-fetch")
        self._closed = False

    def get(self, number: int) -> Data:
        """Return a frame's bytes; waits for them.

        Raises:
            SnapshotDamaged: They are not those that were written.
        """
        return self._submit(number).result()

    def want(self, numbers: Iterable[int]) -> None:
        """Have frames fetched that will be asked for."""
        for number in numbers:
            self._submit(number)

    def close(self) -> None:
        """Forget all."""
        self._closed = True
        self._threads.shutdown(cancel_futures=True)

    def _submit(self, number: int) -> Future[Data]:
        with self._lock:
            future = self._kept_frames.get(number) or self._frames.get(number)
            if future is None:
                future = self._threads.submit(self._fetch, number)
                if number in self._kept:
                    self._kept_frames[number] = future
                    return future
                self._frames[number] = future
                while len(self._frames) > self._most:
                    self._frames.popitem(last=False)[1].cancel()
            elif number not in self._kept:
                self._frames.move_to_end(number)
            return future

    def _fetch(self, number: int) -> Data:
        pause_s, damaged = _PAUSE_S, 0
        while True:
            try:
                return self._load(number)
            except SnapshotDamaged:
                damaged += 1
                if damaged == _DAMAGED_READS:
                    raise
            except StoreError:
                if self._closed:
                    raise
            self._sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
