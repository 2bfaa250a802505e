"""Reading from a store that stumbles, for somebody who cannot do without."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from snaplib.errors import SnapshotDamaged, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["patiently"]

_Found = TypeVar("_Found")

_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0
#: How often is read again what has a wrong checksum: the network's fault passes, the store's does not.
_DAMAGED_READS = 3


def patiently(read: Callable[[], _Found], pause: Callable[[float], bool]) -> _Found:
    """Read, and again for as long as it takes.

    Args:
        read: Reads.
        pause: Waits so many seconds; says whether to go on.

    Raises:
        SnapshotDamaged: The bytes stored are not those that were written, several times.
        StoreError: They could not be read, and are not wanted any more.
    """
    pause_s, damaged = _PAUSE_S, 0
    while True:
        try:
            return read()
        except SnapshotDamaged:
            damaged += 1
            if damaged == _DAMAGED_READS:
                raise
        except StoreError:
            pass
        if not pause(pause_s):
            return read()
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
