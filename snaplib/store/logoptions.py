"""How a page log is written."""

from __future__ import annotations

import os
from typing import Literal

import attrs

from snaplib.errors import UsageError
from snaplib.store import budget
from snaplib.store.index import PAGE_BYTES
from snaplib.store.places import PLACE_SHIFT
from snaplib.store.segments import SEGMENT_BYTES

__all__ = ["PageLogOptions"]


@attrs.frozen
class PageLogOptions:
    """How a page log is written.

    Attributes:
        codec: ``auto`` compresses what there is time for, ``zstd`` everything, ``none`` nothing.
        level: zstd's level.
        workers: How many threads compress; by default one less than there are CPUs, from 1 to 6.
        frame_bytes: The size of a frame, a multiple of the page size; by default what `snaplib.store.budget` allows.
        segment_bytes: The size from which on a new segment is begun.
    """

    codec: Literal["auto", "zstd", "none"] = "auto"
    level: int = -1
    workers: int = attrs.field(validator=attrs.validators.ge(1))
    frame_bytes: int = attrs.field()
    segment_bytes: int = SEGMENT_BYTES

    @workers.default
    def _workers(self) -> int:
        return budget.coders(len(os.sched_getaffinity(0)))

    @frame_bytes.default
    def _frame_bytes(self) -> int:
        return budget.frame_bytes(self.workers)

    @frame_bytes.validator
    def _check_frame_bytes(self, _attribute: object, value: int) -> None:
        if value <= 0 or value % PAGE_BYTES:
            raise UsageError(f"frames of {value} bytes are not of whole pages")
        if value >= PAGE_BYTES << PLACE_SHIFT:
            raise UsageError(f"frames of {value} bytes are too large")
