"""Whether segments of earlier snapshots are where a new one is going to say that they are."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from snaplib.store import names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from snaplib.store.backend import Backend
    from snaplib.store.manifest import Segment

__all__ = ["present"]

#: How many are asked for at once where each answer takes its time.
_AT_ONCE = 16


def present(backend: Backend, segments: Sequence[Segment]) -> list[bool]:
    """Tell of each segment whether it is there, with all its bytes; they are not read.

    Args:
        backend: Where.
        segments: Which.

    Raises:
        StoreError: The store does not say.
    """

    def look(segment: Segment) -> bool:
        try:
            found = backend.open(names.object_name(segment.owner, segment.name), bulk=True)
        except FileNotFoundError:
            return False
        with contextlib.closing(found):
            return found.size_bytes == segment.size_bytes

    if backend.local or len(segments) < 2:
        return [look(segment) for segment in segments]
    with ThreadPoolExecutor(min(_AT_ONCE, len(segments)), "snaplib-present") as pool:
        return list(pool.map(look, segments))
