"""A backend whose calls come back in time, whatever becomes of the place.

A disk that fails, or a file system whose server has gone, keeps a call of the kernel waiting, and nothing ends that.
So calls are made in threads that are left behind if need be: to whoever called, the store then does not answer.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from snaplib.errors import StoreUnreachable
from snaplib.store.grace import Grace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from snaplib.store.backend import Backend, Data, Hold, ObjectReader, ObjectWriter
    from snaplib.store.throughput import Throughput

__all__ = ["BoundedBackend"]

T = TypeVar("T")

#: A call is given up this long after the limit has passed: tidying up comes after it. Once one was given up others get
#: less, until the place answers again.
_GRACE_S = 1.0
_LITTLE_GRACE_S = 0.1
#: How often who waits looks at the limit.
_LOOK_S = 0.02


class BoundedBackend:
    """Passes everything on to another backend, and gives up what is not done when the limit has passed.

    What was given up may be done later all the same.

    Args:
        backend: The other one.
        grace_s: How long after the limit.
    """

    def __init__(self, backend: Backend, *, grace_s: float = _GRACE_S) -> None:
        self._backend = backend
        self._calls = _Calls(backend.url, grace_s)

    @property
    def url(self) -> str:
        """The address, as a user would write it."""
        return self._backend.url

    @property
    def address(self) -> str:
        """What opens it again, in another process too."""
        return self._backend.address

    @property
    def local(self) -> bool:
        """Whether its bytes are on this machine."""
        return self._backend.local

    def limit_by(self, left_s: Callable[[], float] | None) -> None:
        """Give up what is not done in time, also of what is under way already.

        Args:
            left_s: Tells how many seconds are left; None takes the limit away.
        """
        self._calls.limit = left_s
        self._backend.limit_by(left_s)

    def throughput(self) -> Throughput:
        """Return how fast it has been so far."""
        return self._backend.throughput()

    def create(self, name: str, *, bulk: bool = False) -> ObjectWriter:
        """Begin a new object; its name must be unused."""
        created = self._calls.make(
            lambda: self._backend.create(name, bulk=bulk), name, late=lambda writer: writer.abort()
        )
        return _Writer(created, self._calls, name)

    def put_new(self, name: str, data: bytes) -> None:
        """Write a small object durably and atomically, if there is none of that name."""
        self._calls.make(lambda: self._backend.put_new(name, data), name)

    def open(self, name: str, *, bulk: bool = False) -> ObjectReader:
        """Open an object."""
        opened = self._calls.make(
            lambda: self._backend.open(name, bulk=bulk), name, late=lambda reader: reader.close()
        )
        # A restore reads in many threads, and may wait.
        return opened if bulk else _Reader(opened, self._calls, name)

    def get(self, name: str) -> bytes:
        """Return the whole of a small object."""
        return self._calls.make(lambda: self._backend.get(name), name)

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names of all objects under a folder, in no particular order."""
        yield from self._calls.make(lambda: list(self._backend.names(prefix)), prefix)

    def delete(self, name: str) -> None:
        """Delete an object, if it is there."""
        self._calls.make(lambda: self._backend.delete(name), name)

    def delete_folder(self, prefix: str) -> None:
        """Delete all objects under a folder, if there are any."""
        self._calls.make(lambda: self._backend.delete_folder(prefix), prefix)

    def hold(self, folder: str) -> Hold:
        """Make a new folder, marked as being written until released or this process dies."""
        held = self._calls.make(
            lambda: self._backend.hold(folder), folder, late=lambda hold: hold.release()
        )
        return _Hold(held, self._calls, folder)

    def delete_abandoned(self, prefix: str, keep: Callable[[str], bool]) -> list[str]:
        """Delete the folders that nobody holds."""
        return self._calls.make(lambda: self._backend.delete_abandoned(prefix, keep), prefix)

    def free_bytes(self) -> int | None:
        """How much more can be stored."""
        return self._calls.make(self._backend.free_bytes, "free room")


class _Call(Generic[T]):
    """One call, in a thread that may be left behind."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._result: T | None = None
        self._error: BaseException | None = None
        self._late: Callable[[T], None] | None = None
        self._is_left = False
        self.done = threading.Event()

    def run(self) -> None:
        try:
            result = self._work()
        except BaseException as error:  # noqa: BLE001 - raised again by result()
            self._error = error
            self.done.set()
            return
        with self._lock:
            self._result = result
            self.done.set()
        if self._is_left and self._late is not None:
            # Nobody will ever have it.
            with contextlib.suppress(Exception):
                self._late(result)

    def leave(self, late: Callable[[T], None] | None) -> bool:
        """Leave it behind; returns false if it has just come to its end."""
        with self._lock:
            if self.done.is_set():
                return False
            self._late, self._is_left = late, True
            return True

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]


class _Helper:
    """A thread that makes the calls of another: it has its niceness, and ends with it."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._queue: queue.SimpleQueue[_Call[object] | None] = queue.SimpleQueue()
        threading.Thread(
            target=_serve, args=(self._queue,), name="snaplib-call", daemon=True
        ).start()

    def begin(self, call: _Call[T]) -> None:
        self._queue.put(call)  # type: ignore[arg-type]

    def __del__(self) -> None:
        self._queue.put(None)


def _serve(calls: queue.SimpleQueue[_Call[object] | None]) -> None:
    while (call := calls.get()) is not None:
        call.run()
        # Not until the next one: it has buffers.
        del call


class _Calls:
    """Makes calls, each thread's by a helper of its own.

    Args:
        url: What is called, for messages.
        grace_s: How long after the limit a call is given up.
    """

    def __init__(self, url: str, grace_s: float) -> None:
        self._url = url
        self._grace_s = grace_s
        self._own = threading.local()
        #: Whether the last that is known of the place is that it does not answer.
        self._is_silent = False
        self.limit: Callable[[], float] | None = None

    def make(self, work: Callable[[], T], what: str, late: Callable[[T], None] | None = None) -> T:
        """Make a call, and wait for its end.

        Args:
            work: The call.
            what: What it is for, for errors.
            late: Called with what it returns after it was given up.

        Raises:
            StoreUnreachable: It was given up.
        """
        helper: _Helper | None = getattr(self._own, "helper", None)
        # Threads do not come along when a process is forked.
        if helper is None or helper.pid != os.getpid():
            helper = self._own.helper = _Helper()
        call = _Call(work)
        helper.begin(call)
        began_s = time.monotonic()
        try:
            in_time = self._waited_for(call)
        except BaseException:
            self._own.helper = None
            call.leave(late)
            raise
        if not in_time:
            self._own.helper = None
            if call.leave(late):
                self._is_silent = True
                raise StoreUnreachable(
                    f"{self._url} has not answered for {time.monotonic() - began_s:.3g} s ({what})",
                    hint="look at the disk, or at the server of the file system",
                )
        self._is_silent = False
        return call.result()

    def _waited_for(self, call: _Call[T]) -> bool:
        grace = Grace()
        while not call.done.wait(_LOOK_S):
            grace_s = min(self._grace_s, _LITTLE_GRACE_S) if self._is_silent else self._grace_s
            if grace.is_over(self.limit, grace_s):
                return False
        return True


class _Writer:
    """An object being written.

    What was given up may still write: until that has come to its end the object is neither made durable nor closed.
    """

    def __init__(self, writer: ObjectWriter, calls: _Calls, name: str) -> None:
        self._writer = writer
        self._calls = calls
        self._name = name
        self._lock = threading.Lock()
        self._under_way = 0
        self._is_unwanted = False

    @property
    def size_bytes(self) -> int:
        return self._writer.size_bytes

    def append(self, data: Data) -> int:
        return self._make(lambda: self._writer.append(data))

    def commit(self) -> None:
        if self._under_way:
            raise StoreUnreachable(f"something of {self._name} is still being written")
        self._make(self._writer.commit)

    def abort(self) -> None:
        with self._lock:
            self._is_unwanted = True
            if self._under_way:
                return
        with contextlib.suppress(StoreUnreachable):
            self._calls.make(self._writer.abort, self._name)

    def _make(self, work: Callable[[], T]) -> T:
        with self._lock:
            self._under_way += 1

        def counted() -> T:
            try:
                return work()
            finally:
                with self._lock:
                    self._under_way -= 1
                    is_over = self._is_unwanted and not self._under_way
                if is_over:
                    self._writer.abort()

        return self._calls.make(counted, self._name)


class _Reader:
    """A small object open for reading."""

    def __init__(self, reader: ObjectReader, calls: _Calls, name: str) -> None:
        self._reader = reader
        self._calls = calls
        self._name = name

    @property
    def seal_bytes(self) -> int:
        return self._reader.seal_bytes

    @property
    def size_bytes(self) -> int:
        return self._reader.size_bytes

    def read(self, offset: int, size: int) -> bytes:
        return self._calls.make(lambda: self._reader.read(offset, size), self._name)

    def read_into(self, offset: int, room: memoryview, size: int) -> int:
        return self._reader.read_into(offset, room, size)

    def close(self) -> None:
        self._reader.close()


class _Hold:
    """The mark that a folder is being written."""

    def __init__(self, hold: Hold, calls: _Calls, folder: str) -> None:
        self._hold = hold
        self._calls = calls
        self._folder = folder

    @property
    def lost(self) -> bool:
        return self._hold.lost

    def check(self) -> None:
        self._calls.make(self._hold.check, self._folder)

    def release(self) -> None:
        with contextlib.suppress(StoreUnreachable):
            self._calls.make(self._hold.release, self._folder)
