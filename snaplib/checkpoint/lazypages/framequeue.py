"""Which frame comes next: one that somebody waits for, else what follows the last of those."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

import attrs
import numpy as np

__all__ = ["FrameQueue", "Wanted"]


@attrs.frozen
class Wanted:
    """A frame to bring.

    Attributes:
        frame: Its number.
        near: An address in it that somebody waits for, as it was when it was dumped.
    """

    frame: int
    near: int | None = None


class FrameQueue:
    """The frames that are to come; any thread may call.

    Args:
        count: How many frames there are.
        wanted: Those that are needed.
        first: Some of them that are likely to be asked for at once.
    """

    def __init__(self, count: int, wanted: Iterable[int], first: Iterable[int]) -> None:
        self._changed = threading.Condition()
        self._waiting = np.zeros(count, np.bool_)
        self._waiting[list(wanted)] = True
        self._first = deque(frame for frame in first if self._waiting[frame])
        self._urgent: deque[Wanted] = deque()
        #: Frames that are under way, and of those the ones that somebody waits for.
        self._underway: dict[int, bool] = {}
        self._next = 0
        self._open = False
        self._closed = False

    def take(self, *, urgent: bool = False) -> Wanted | None:
        """Return the next frame, which is under way then; waits for one; None at the end.

        Args:
            urgent: Only one that somebody waits for.
        """
        with self._changed:
            while True:
                if self._closed:
                    return None
                wanted = self._choose(urgent=urgent)
                if wanted is not None:
                    self._waiting[wanted.frame] = False
                    self._underway[wanted.frame] = wanted.near is not None
                    return wanted
                self._changed.wait()

    def wait_to_put(self, frame: int) -> bool:
        """Wait until a frame that is under way may be put where it belongs; false at the end."""
        with self._changed:
            while not (self._open or self._closed or self._underway.get(frame, True)):
                self._changed.wait()
            return not self._closed

    def done(self, frame: int) -> None:
        """Say that a frame is not under way any more."""
        with self._changed:
            self._underway.pop(frame, None)

    def urge(self, frame: int, near: int) -> None:
        """Say that somebody waits for an address in a frame."""
        with self._changed:
            if frame in self._underway:
                self._underway[frame] = True
            else:
                # As it is, or once more where a fork needs it again.
                self._waiting[frame] = True
                self._urgent.append(Wanted(frame, near))
            self._next = frame + 1
            self._changed.notify_all()

    def put(self, frames: Iterable[int]) -> None:
        """Add frames, perhaps once more."""
        with self._changed:
            self._waiting[list(frames)] = True
            self._changed.notify_all()

    @property
    def is_open(self) -> bool:
        """Whether frames come that nobody waits for."""
        return self._open

    def open(self) -> None:
        """Let frames come that nobody waits for."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def close(self) -> None:
        """End it: nobody gets a frame any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _choose(self, *, urgent: bool) -> Wanted | None:
        while self._urgent:
            wanted = self._urgent.popleft()
            if self._waiting[wanted.frame]:
                return wanted
        if urgent:
            return None
        while self._first:
            frame = self._first.popleft()
            if self._waiting[frame]:
                return Wanted(frame)
        if not self._open:
            return None
        for begin in (self._next, 0):
            part = self._waiting[begin:]
            place = int(part.argmax()) if len(part) else 0
            if len(part) and part[place]:
                self._next = begin + place + 1
                return Wanted(begin + place)
        return None
