"""How fast a store takes and gives bytes, measured on what goes there and comes from it anyway."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Meter", "Throughput"]

#: What is smaller tells how long a request takes, not how fast bytes go.
SMALL_BYTES = 256 << 10


@attrs.frozen
class Throughput:
    """What has been measured so far.

    Attributes:
        sent_bytes: Bytes of large writes that were taken.
        sending_s: Seconds in which at least one of them was under way.
        received_bytes: Bytes of large reads.
        receiving_s: Seconds in which at least one of them was under way.
        small_writes: How many small writes there were.
        small_writes_s: The seconds all of them took.
    """

    sent_bytes: int = 0
    sending_s: float = 0.0
    received_bytes: int = 0
    receiving_s: float = 0.0
    small_writes: int = 0
    small_writes_s: float = 0.0

    @property
    def sent_bytes_per_s(self) -> float | None:
        """The bandwidth of writing; None if nothing large was written yet."""
        return self.sent_bytes / self.sending_s if self.sending_s > 0 else None

    @property
    def received_bytes_per_s(self) -> float | None:
        """The bandwidth of reading; None if nothing large was read yet."""
        return self.received_bytes / self.receiving_s if self.receiving_s > 0 else None

    @property
    def write_latency_s(self) -> float | None:
        """How long a small write takes; None if there was none yet."""
        return self.small_writes_s / self.small_writes if self.small_writes else None


class _Direction:
    """Bytes one way, and the time in which any were under way."""

    def __init__(self) -> None:
        self.total_bytes = 0
        self._busy_s = 0.0
        self._active = 0
        self._since = 0.0

    def begin(self, now: float) -> None:
        if not self._active:
            self._since = now
        self._active += 1

    def end(self, now: float, size_bytes: int) -> None:
        self.total_bytes += size_bytes
        self._active -= 1
        if not self._active:
            self._busy_s += now - self._since

    def busy_s(self, now: float) -> float:
        return self._busy_s + (now - self._since if self._active else 0.0)


class Meter:
    """Measures; any thread may use it.

    Args:
        clock: Tells monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._sent = _Direction()
        self._received = _Direction()
        self._small = 0
        self._small_s = 0.0

    @contextlib.contextmanager
    def sending(self, size_bytes: int) -> Iterator[None]:
        """Measure one write, if it succeeds.

        Args:
            size_bytes: How much is written.
        """
        if size_bytes >= SMALL_BYTES:
            with self._measured(self._sent, size_bytes):
                yield
            return
        begun = self._clock()
        yield
        with self._lock:
            self._small += 1
            self._small_s += self._clock() - begun

    @contextlib.contextmanager
    def receiving(self, size_bytes: int) -> Iterator[None]:
        """Measure one read, if it succeeds.

        Args:
            size_bytes: How much is read.
        """
        if size_bytes < SMALL_BYTES:
            yield
            return
        with self._measured(self._received, size_bytes):
            yield

    @contextlib.contextmanager
    def _measured(self, direction: _Direction, size_bytes: int) -> Iterator[None]:
        with self._lock:
            direction.begin(self._clock())
        done_bytes = 0
        try:
            yield
            done_bytes = size_bytes
        finally:
            # The time of a failure counts: what it took is lost to everything else.
            with self._lock:
                direction.end(self._clock(), done_bytes)

    def read(self) -> Throughput:
        """Return what has been measured so far."""
        with self._lock:
            now = self._clock()
            return Throughput(
                self._sent.total_bytes,
                self._sent.busy_s(now) if self._sent.total_bytes else 0.0,
                self._received.total_bytes,
                self._received.busy_s(now) if self._received.total_bytes else 0.0,
                self._small,
                self._small_s,
            )
