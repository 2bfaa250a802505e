"""The way of pages: received from CRIU, compressed by some threads, written to the store, all at once."""

from __future__ import annotations

from typing import Literal

import attrs

__all__ = ["Flow", "Pipeline"]


@attrs.frozen
class Flow:
    """Pages on their way.

    Attributes:
        seconds: How long it takes.
        stored_bytes: What the store gets.
        binds: What it waits for: ``memory``, ``codec`` or ``store``.
    """

    seconds: float
    stored_bytes: float
    binds: Literal["memory", "codec", "store"]


@attrs.frozen
class Pipeline:
    """The speeds of the three stages, in bytes a second.

    Attributes:
        memory_bytes_s: Of receiving pages.
        codec_bytes_s: Of all threads that compress, by bytes before.
        store_bytes_s: Of the store, by bytes as stored.
    """

    memory_bytes_s: float
    codec_bytes_s: float
    store_bytes_s: float

    def flow(self, sent_bytes: float, ratio: float) -> Flow:
        """Return how long pages take.

        As `snaplib.store.PageLogWriter` does it, frames are compressed while there is time and stored as
        they are otherwise, so that the three stages end together as far as they can.

        Args:
            sent_bytes: Bytes of pages.
            ratio: What the codec leaves of one.
        """
        if self.store_bytes_s <= 0:
            # Nothing at all can be made durable.
            return Flow(float("inf"), 0.0, "store")
        if sent_bytes <= 0:
            return Flow(0.0, 0.0, "memory")
        saved = 1 - ratio
        receive_s = sent_bytes / self.memory_bytes_s
        # As much as the codec gets done while pages come in.
        share = min(1.0, self.codec_bytes_s / self.memory_bytes_s)
        stored = (1 - share * saved) * sent_bytes
        if stored / self.store_bytes_s <= receive_s:
            return Flow(receive_s, stored, "memory")
        # The store is behind: compress until codec and store take the same time, or all.
        store_s = sent_bytes / self.store_bytes_s
        codec_s = sent_bytes / self.codec_bytes_s
        share = min(1.0, store_s / (codec_s + saved * store_s))
        stored = (1 - share * saved) * sent_bytes
        seconds = max(receive_s, stored / self.store_bytes_s)
        return Flow(seconds, stored, "store" if share >= 1.0 else "codec")
