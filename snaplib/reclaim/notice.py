"""What a source of notices says."""

from __future__ import annotations

import enum
import time

import attrs

__all__ = ["Notice", "NoticeKind"]


class NoticeKind(enum.StrEnum):
    """What a notice means."""

    #: The machine ends: a window has begun.
    RECLAIM = "reclaim"
    #: It may end soon: worth copying ahead for, not worth stopping for.
    HINT = "hint"
    #: The machine stays after all.
    CANCELLED = "cancelled"
    #: The source cannot be asked at present.
    TROUBLE = "trouble"


@attrs.frozen
class Notice:
    """One thing that a source has said.

    Attributes:
        source: Who says it, for example ``aws`` or ``signal``.
        window_s: How many seconds are left, counted from when it is heard; None where the source does not say.
        kind: What it means.
        detail: What the source said, in its words, for people.
        heard_s: When, by ``time.monotonic()``.
    """

    source: str
    window_s: float | None = None
    kind: NoticeKind = NoticeKind.RECLAIM
    detail: str = ""
    heard_s: float = attrs.field(factory=time.monotonic, eq=False)
