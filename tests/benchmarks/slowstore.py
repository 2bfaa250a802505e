"""A store whose way is as slow as it is told to be."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from snaplib.store.throughput import Meter, Throughput

if TYPE_CHECKING:
    from snaplib.store.backend import Backend, Data, ObjectWriter

__all__ = ["ThrottledBackend"]


class ThrottledBackend:
    """Passes everything on to another backend, large writes at a limited pace.

    Args:
        backend: Where the bytes go.
        bytes_s: How many a second.
    """

    def __init__(self, backend: Backend, bytes_s: float) -> None:
        self._backend = backend
        self._bytes_s = bytes_s
        self._meter = Meter()
        self._lock = threading.Lock()
        self._free_at_s = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    @property
    def url(self) -> str:
        """An address of its own: its history is another's."""
        return f"throttled://{self._bytes_s / 1e6:.0f}MBs"

    def throughput(self) -> Throughput:
        """Return what was measured, the waiting included."""
        return self._meter.read()

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names of all objects under a folder."""
        return self._backend.names(prefix)

    def create(self, name: str, *, bulk: bool = False) -> ObjectWriter:
        """Begin a new object."""
        return _Writer(self, self._backend.create(name, bulk=bulk))

    def passing(self, size_bytes: int) -> None:
        """Wait until so many bytes are through: one after another, as on a wire."""
        with self._lock:
            self._free_at_s = max(self._free_at_s, time.monotonic()) + size_bytes / self._bytes_s
            done_s = self._free_at_s
        time.sleep(max(done_s - time.monotonic(), 0.0))

    @property
    def meter(self) -> Meter:
        """Measures."""
        return self._meter


class _Writer:
    def __init__(self, owner: ThrottledBackend, writer: ObjectWriter) -> None:
        self._owner = owner
        self._writer = writer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    def append(self, data: Data) -> int:
        with self._owner.meter.sending(len(data)):
            offset = self._writer.append(data)
            self._owner.passing(len(data))
        return offset
