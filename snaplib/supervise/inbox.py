"""What a supervisor is told by other threads and signal handlers, and a descriptor that says there is something."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from typing import Any

import attrs

__all__ = ["Inbox", "Tell"]


@attrs.frozen
class Tell:
    """A message: an event to be told.

    Attributes:
        event: Its name.
        details: Its figures.
    """

    event: str
    details: dict[str, Any]


class Inbox:
    """Messages in the order they came.  `put` may be called from any thread, and from signal handlers."""

    def __init__(self) -> None:
        self._messages: deque[Any] = deque()
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def put(self, message: Any) -> None:
        """Add a message."""
        self._messages.append(message)
        # A full pipe means that its reader is about to look anyway.
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, b"!")

    def tell(self, event: str, **details: Any) -> None:
        """Have an event told by whoever reads this."""
        self.put(Tell(event, details))

    def wake(self) -> None:
        """Have the reader look around."""
        self.put(None)

    def take(self) -> list[Any]:
        """Return what has come since the last time."""
        # The pipe first: whoever adds a message now rings again.
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 4096)
        taken = []
        while self._messages:
            taken.append(self._messages.popleft())
        return taken

    def look(self) -> tuple[Any, ...]:
        """Return what there is to take, and leave it."""
        return tuple(self._messages)

    def fileno(self) -> int:
        """Return a descriptor that is readable while there may be something to take."""
        return self._read

    def close(self) -> None:
        """Close the descriptors; may be called again."""
        read, write, self._read, self._write = self._read, self._write, -1, -1
        for descriptor in (read, write):
            if descriptor >= 0:
                os.close(descriptor)

    def __del__(self) -> None:
        # Not sooner: a notice may come to a supervisor whose task has ended.
        with contextlib.suppress(AttributeError, OSError):
            self.close()
