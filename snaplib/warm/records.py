"""What copying ahead reports."""

from __future__ import annotations

import attrs

from snaplib.errors import SnaplibError

__all__ = ["CopyFailed", "Round"]


class CopyFailed(SnaplibError, RuntimeError):
    """What was copied ahead cannot be relied on; the task runs, and can be saved without it."""

    default_hint = "the task can still be saved wholly"


@attrs.frozen
class Round:
    """What one round did.

    Attributes:
        number: Which round of the snapshot it was, from 1.
        changed_pages: Pages that had changed since the round before, those without content included.
        copied_pages: Pages that were copied.
        left_pages: Pages that are still to be copied, because it was told to stop, or because the
            task could not be stopped for a moment.
        log_pages: Pages that are in the log now, and up to date as of this round.
        frozen_s: For how long the task stood still.
        duration_s: How long it took.
    """

    number: int
    changed_pages: int
    copied_pages: int
    left_pages: int
    log_pages: int
    frozen_s: float
    duration_s: float
