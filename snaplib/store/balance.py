"""Which frames to compress: as many as there is time for, and all if the disk is slower than that.

Codec and disk work at the same time.  What the disk can write until the codec is through with what it has
goes to it as it is, so that nothing waits for the codec.  Where the disk could not, a raw frame would only
displace several compressed ones.  Memory that does not compress is only tried now and then.
"""

from __future__ import annotations

import attrs

from snaplib.store.codec import WORTH

__all__ = ["Balance", "CodecFigures"]

#: Where memory does not compress, one frame of this many is tried nevertheless.
_TRY_EVERY = 8

#: The weight of the newest frame in the averages.
_WEIGHT = 0.1


@attrs.frozen
class CodecFigures:
    """What the codec has done so far.

    Attributes:
        raw_bytes: What it was given.
        stored_bytes: What is stored of it.
        busy_s: Seconds that it took, of all threads together.
        threads: How many there are.
    """

    raw_bytes: int
    stored_bytes: int
    busy_s: float
    threads: int


class Balance:
    """Watches codec and disk at work; the caller sees to it that one thread at a time calls.

    Args:
        workers: How many threads compress.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        #: Averages: a worker's seconds a raw byte, stored bytes a raw byte, the disk's seconds a
        #: stored byte.
        self._codec_s: float | None = None
        self._ratio: float | None = None
        self._disk_s: float | None = None
        self._raw_bytes = 0
        self._stored_bytes = 0
        self._busy_s = 0.0

    @property
    def codec_figures(self) -> CodecFigures:
        """What the codec has done so far."""
        return CodecFigures(self._raw_bytes, self._stored_bytes, self._busy_s, self._workers)

    def compressed(self, raw_bytes: int, stored_bytes: int, seconds: float) -> None:
        """Note that a worker compressed a frame.

        Args:
            raw_bytes: The frame's size.
            stored_bytes: Its size as it will be stored.
            seconds: How long it took.
        """
        self._raw_bytes += raw_bytes
        self._stored_bytes += stored_bytes
        self._busy_s += seconds
        self._codec_s = _mixed(self._codec_s, seconds / raw_bytes)
        self._ratio = _mixed(self._ratio, stored_bytes / raw_bytes)

    def written(self, stored_bytes: int, seconds: float, at_once: int) -> None:
        """Note that something was written.

        Args:
            stored_bytes: Its size.
            seconds: How long it took.
            at_once: How many such writes shared the disk.
        """
        self._disk_s = _mixed(self._disk_s, seconds / at_once / stored_bytes)

    def disk_has_time(self, raw_bytes: int, *, waiting_bytes: int, coding_bytes: int) -> bool:
        """Return whether the disk can write a frame as it is before the codec would come to it.

        Args:
            raw_bytes: The frame.
            waiting_bytes: What the disk has yet to write.
            coding_bytes: What the codec has yet to compress.
        """
        if self._codec_s is None or self._disk_s is None:
            # One is tried, so that it becomes known: a slow disk would be long at more of them.
            return not waiting_bytes
        disk_s = (waiting_bytes + raw_bytes) * self._disk_s
        return disk_s <= coding_bytes * self._codec_s / self._workers

    def left_s(self, *, waiting_bytes: int, coding_bytes: int) -> float | None:
        """Return for how long the disk will be busy with what there is; None while that is unknown.

        Args:
            waiting_bytes: What the disk has yet to write.
            coding_bytes: What the codec has yet to compress.
        """
        if self._disk_s is None:
            return None
        ratio = 1.0 if self._ratio is None else self._ratio
        return (waiting_bytes + coding_bytes * ratio) * self._disk_s

    def worth_trying(self, frame: int) -> bool:
        """Whether to try to compress a frame.

        Args:
            frame: Its number.
        """
        return self._ratio is None or self._ratio < WORTH or frame % _TRY_EVERY == 0


def _mixed(average: float | None, new: float) -> float:
    return new if average is None else average + _WEIGHT * (new - average)
