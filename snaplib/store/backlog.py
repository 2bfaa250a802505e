"""The backlog: frames that codec and disk have been given and have not done yet, and for how long that keeps them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from snaplib.store.balance import Balance

if TYPE_CHECKING:
    from snaplib.store.balance import CodecFigures

__all__ = ["Backlog"]

#: In the background no more is accepted than what is stored within this time, or so many frames while nothing is
#: known of the disk: when there is a notice it stands between the task and its dump.
_MOST_BEHIND_S = 0.5
_MOST_BEHIND = 2
#: A disk that does nothing for this many times as long as a frame takes, and at least so long, has come to a halt.
_HALT_TIMES = 4
_HALT_LEAST_S = 0.1


class Backlog:
    """Counts frames on their way; the caller sees to it that one thread at a time calls.

    Args:
        workers: How many threads compress.
        frame_bytes: The size of a whole frame.

    Attributes:
        coding: How many frames are on their way through the codec, until they are stored.
        writing: How many go to the disk as they are.
    """

    def __init__(self, workers: int, frame_bytes: int) -> None:
        self._frame_bytes = frame_bytes
        self._balance = Balance(workers)
        #: When the disk was last seen to do something, or was given something to do.
        self._moved_s = 0.0
        self.clear()

    def clear(self) -> None:
        """Forget what is on its way; what has been learned of codec and disk stays."""
        self.coding = 0
        self.writing = 0
        self._storing = 0
        #: Bytes that the codec, and that the disk has yet to do.
        self._to_code_bytes = 0
        self._to_write_bytes = 0

    @property
    def frames(self) -> int:
        """How many frames are on their way."""
        return self.coding + self.writing

    @property
    def codec_figures(self) -> CodecFigures:
        """What the codec has done so far."""
        return self._balance.codec_figures

    def for_codec(self, raw_bytes: int) -> None:
        """Note a frame that is given to the codec."""
        self.coding += 1
        self._to_code_bytes += raw_bytes

    def for_disk(self, stored_bytes: int) -> None:
        """Note a frame that is given to the disk as it is."""
        self.writing += 1
        self._expect(stored_bytes)

    def coded(self, raw_bytes: int, stored_bytes: int, seconds: float) -> None:
        """Note that the codec is done with a frame, which goes to the disk now.

        Args:
            raw_bytes: What it had.
            stored_bytes: What is stored of it.
            seconds: How long that took.
        """
        self._balance.compressed(raw_bytes, stored_bytes, seconds)
        self._to_code_bytes -= raw_bytes
        self._expect(stored_bytes)

    def _expect(self, stored_bytes: int) -> None:
        if not self._to_write_bytes:
            self._moved_s = time.perf_counter()
        self._to_write_bytes += stored_bytes

    def appending(self) -> int:
        """Note that one is just being written; returns how many are, with it."""
        self._storing += 1
        return self._storing

    def appended(self, stored_bytes: int, seconds: float, at_once: int) -> None:
        """Note that it is written, or failed to be.

        Args:
            stored_bytes: How large it is.
            seconds: How long that took.
            at_once: What `appending` returned.
        """
        self._storing -= 1
        self._balance.written(stored_bytes, seconds, at_once)

    def done(self, stored_bytes: int, *, coded: bool) -> None:
        """Note that a frame is on its way no more.

        Args:
            stored_bytes: What the disk was given of it.
            coded: Whether it came through the codec.
        """
        if coded:
            self.coding -= 1
        else:
            self.writing -= 1
        self._to_write_bytes -= stored_bytes
        self._moved_s = time.perf_counter()

    def is_short(self) -> bool:
        """Return whether one more frame would not keep a dump waiting."""
        waiting, coding = self._to_write_bytes, self._to_code_bytes
        left_s = self._balance.left_s(waiting_bytes=waiting, coding_bytes=coding)
        if left_s is None:
            return waiting + coding < _MOST_BEHIND * self._frame_bytes
        return left_s < _MOST_BEHIND_S

    def worth_trying(self, frame: int) -> bool:
        """Return whether to try to compress a frame, given its number."""
        return self._balance.worth_trying(frame)

    def disk_has_time(self, raw_bytes: int) -> bool:
        """Return whether the disk can write a frame as it is before the codec would come to it."""
        return self._balance.disk_has_time(
            raw_bytes, waiting_bytes=self._to_write_bytes, coding_bytes=self._to_code_bytes
        )

    def halted(self) -> bool:
        """Return whether the disk has had something to do for long, and done nothing of it."""
        if not self._to_write_bytes:
            return False
        frame_s = self._balance.left_s(waiting_bytes=self._frame_bytes, coding_bytes=0)
        most_s = max(_HALT_LEAST_S, _HALT_TIMES * (frame_s or 0.0))
        return time.perf_counter() - self._moved_s > most_s
