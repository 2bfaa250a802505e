"""What an init waits for: descriptors that are ready, and signals."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterable, Mapping

__all__ = ["Wakeups"]


class Wakeups:
    """Waits; the signals of this process come to it from now on.

    Args:
        signals: Which.
    """

    def __init__(self, signals: Iterable[int]) -> None:
        self._signals, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in signals:
            signal.signal(number, lambda *_: None)
        self._poll = select.poll()
        self._poll.register(self._signals, select.POLLIN)
        #: What is registered: most turns ask for the same as the one before.
        self._polled: Mapping[int, int] = {}

    def wait(
        self, wanted: Mapping[int, int], timeout_ms: int | None
    ) -> tuple[set[int], list[tuple[int, int]]]:
        """Wait for something.

        Args:
            wanted: Descriptors, and which events of poll(2) of each.
            timeout_ms: How long; None for ever.

        Returns:
            The signals that came, and the descriptors that are ready, each with its events.
        """
        for fd in self._polled.keys() - wanted.keys():
            self._poll.unregister(fd)
        for fd, events in wanted.items():
            if self._polled.get(fd) != events:
                self._poll.register(fd, events)
        self._polled = wanted
        ready = dict(self._poll.poll(timeout_ms))
        came = ready.pop(self._signals, 0)
        return set(os.read(self._signals, 512)) if came else set(), list(ready.items())
