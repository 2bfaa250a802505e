"""One thing that a host can or cannot do."""

from __future__ import annotations

import attrs

__all__ = ["Feature"]


@attrs.frozen
class Feature:
    """The outcome of a trial.

    Attributes:
        ok: Whether it worked.
        detail: What was found, or why it failed; one line.
        remedy: What to do when it is missing; empty when it works.
        needed: Whether no task can be dumped and restored without it.
    """

    ok: bool
    detail: str
    remedy: str = ""
    needed: bool = False
