"""Who is writing which folder of a bucket, without locks.

A writer keeps a small object, a lease, in its folder and puts it again every now and then.  Whoever finds a folder
whose lease has not been renewed for long takes the lease away first and looks for the manifest after that; a writer
puts its manifest first and looks for its lease after that.  So whatever the order, one of them sees the other: either
the snapshot stays, or its writer learns that it is gone.  Times are the store's own, of both the lease and now, so the
clocks of two machines need not agree.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from typing import TYPE_CHECKING

from snaplib.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from snaplib.store.remote.backend import RemoteBackend

__all__ = ["LEASE_NAME", "LEASE_S", "RemoteHold", "lease_text"]

LEASE_NAME = ".writer"

#: A lease that has not been renewed for this long is of a writer that is dead.
LEASE_S = 600.0
_RENEWALS = 6


def lease_text() -> bytes:
    """Return a new lease: nobody else's is the same."""
    fields = {
        "token": secrets.token_hex(16),
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }
    return json.dumps(fields, sort_keys=True).encode()


class RemoteHold:
    """A lease of ours, renewed in a thread of its own until it is released.

    Args:
        backend: Where it is.
        name: Its name.
        text: Its content.
        lease_s: For how long it holds without being renewed.
        clock: Tells seconds that go on while the machine is suspended.
    """

    def __init__(
        self,
        backend: RemoteBackend,
        name: str,
        text: bytes,
        lease_s: float = LEASE_S,
        clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._backend = backend
        self._name = name
        self._text = text
        self._lease_s = lease_s
        self._clock = clock
        self._renewed_at = clock()
        self._lost = False
        self._held = True
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="snaplib-lease", daemon=True)
        self._thread.start()

    def _renew(self) -> None:
        while not self._released.wait(self._lease_s / _RENEWALS):
            begun = self._clock()
            if begun - self._renewed_at > self._lease_s / 2:
                # The machine stood still, or the store was out of reach: it may be taken away by
                # now, and must not come back.
                self._lost = True
                return
            # If it fails it is tried again: there is time for that.
            with contextlib.suppress(StoreError):
                self._backend.replace(self._name, self._text)
                self._renewed_at = begun

    @property
    def lost(self) -> bool:
        """Whether it was not renewed for so long that somebody may have taken it away."""
        return self._lost

    def check(self) -> None:
        """Make sure that the folder is still ours, once its manifest is there.

        Raises:
            StoreError: It is not: somebody took us for dead and removes what we wrote.
        """
        self._stop()
        found = b""
        if not self._lost:
            with contextlib.suppress(FileNotFoundError):
                found = self._backend.get(self._name)
        if found != self._text:
            raise StoreError(
                f"{self._backend.url} was out of reach for so long that another writer has removed "
                "what this one wrote",
                hint="dump again",
            )

    def release(self) -> None:
        """Take the lease away; may be called again."""
        self._stop()
        held, self._held = self._held, False
        if held:
            # If not, it runs out by itself.
            with contextlib.suppress(StoreError):
                self._backend.delete(self._name)

    def _stop(self) -> None:
        self._released.set()
        self._thread.join()
