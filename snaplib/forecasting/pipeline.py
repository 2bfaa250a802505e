"""The way of pages: received from CRIU, compressed by some threads, written to the store, all at once."""

from __future__ import annotations

from typing import Literal

import attrs

__all__ = ["TRIED", "WORTH", "Flow", "Pipeline"]

#: Memory of which the codec leaves more than this counts as memory that does not compress: of its frames this
#: share is tried all the same.
WORTH = 0.9
TRIED = 1 / 8


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
        codec_bytes_s: Of all threads that compress, by bytes before, when nothing else wants their CPUs.
        store_bytes_s: Of the store, by bytes as stored.
        held_up_s: For how long the codec has no CPU for each byte received, in seconds: receiving comes first.
    """

    memory_bytes_s: float
    codec_bytes_s: float
    store_bytes_s: float
    held_up_s: float = 0.0

    def flow(self, sent_bytes: float, ratio: float) -> Flow:
        """Return how long pages take.

        As `snaplib.store.PageLogWriter` does it, frames are compressed while there is time and stored as
        they are otherwise, so that the three stages end together as far as they can; where memory hardly
        compresses, few are tried.

        Args:
            sent_bytes: Bytes of pages.
            ratio: What the codec leaves of one.
        """
        if self.store_bytes_s < 1:
            # Nothing at all can be made durable.
            return Flow(float("inf"), 0.0, "store")
        if sent_bytes <= 0:
            return Flow(0.0, 0.0, "memory")
        saved = 1 - ratio
        receive_s, store_s = 1 / self.memory_bytes_s, 1 / self.store_bytes_s
        codec_s = 1 / self.codec_bytes_s
        most = 1.0 if ratio < WORTH else TRIED
        # As much as the codec gets done while pages come in, or, where the store is behind, until codec and
        # store take the same time.
        share = min(max(receive_s - self.held_up_s, 0.0) / codec_s, most)
        if (1 - share * saved) * store_s > receive_s:
            share = min(max(store_s - self.held_up_s, 0.0) / (codec_s + saved * store_s), most)
        stored = 1 - share * saved
        seconds = max(receive_s, stored * store_s)
        if seconds <= receive_s:
            binds: Literal["memory", "codec", "store"] = "memory"
        else:
            binds = "store" if share >= most else "codec"
        return Flow(seconds * sent_bytes, stored * sent_bytes, binds)
