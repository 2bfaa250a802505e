"""A parent: the snapshot that the next one of the same task can be incremental to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from snaplib.store.loggedpages import LoggedPages
    from snaplib.store.manifest import Segment

__all__ = ["Parent"]


@attrs.frozen(eq=False)
class Parent:
    """What the next snapshot of a task can be incremental to.

    Attributes:
        id: The snapshot.
        pages: The pages that are known to be as they are there.
        segments: Where those are.
        is_lent: Whether nothing is known of the task's pages, so that each must be found by its content.
    """

    id: str
    pages: LoggedPages
    segments: tuple[Segment, ...]
    is_lent: bool = False
