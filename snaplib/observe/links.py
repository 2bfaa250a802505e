"""What descriptors link to: read once for each new open file, not once a second for all."""

from __future__ import annotations

import contextlib
import os
import time

import numpy as np
import numpy.typing as npt

from snaplib.kernel import ProcFs
from snaplib.observe.descriptors import kind_number, kind_of

__all__ = ["LinkReader"]

#: Links are read anew from time to time, for a file may have been renamed or removed: as often as this, but
#: for no more than one part in so many of the time.
_REFRESH_S = 30.0
_REFRESH_SHARE = 1000

U64Array = npt.NDArray[np.uint64]
U32Array = npt.NDArray[np.uint32]


class LinkReader:
    """Finds the path and the kind of descriptors.

    Args:
        procfs: Where the processes are seen.
    """

    def __init__(self, procfs: ProcFs) -> None:
        self._procfs = procfs
        self._keys: U64Array = np.empty(0, np.uint64)
        self._index: U32Array = np.empty(0, np.uint32)
        self._kinds: U32Array = np.empty(0, np.uint32)
        self._paths: tuple[str, ...] = ()
        self._refresh_s = 0.0

    def read(
        self, pids: U32Array, fds: U32Array, modes: U32Array, identity: U64Array
    ) -> tuple[U32Array, U32Array, tuple[str, ...]]:
        """Return for each descriptor the index of its path and the number of its kind; and the paths.

        Args:
            pids: Whose each is; shape (n,), as all others.
            fds: Their numbers.
            modes: Their files' modes.
            identity: Something that changes when another file is opened under the same number.
        """
        now = time.monotonic()
        keys = _mixed((pids.astype(np.uint64) << np.uint64(32)) | fds.astype(np.uint64)) ^ _mixed(
            identity
        )
        if now >= self._refresh_s:
            self._keys = np.empty(0, np.uint64)
        elif np.array_equal(keys, self._keys):
            return self._index, self._kinds, self._paths
        paths: dict[str, int] = {}
        index = np.empty(len(keys), np.uint32)
        kinds = np.empty(len(keys), np.uint32)
        order = np.argsort(self._keys)
        place = np.searchsorted(self._keys, keys, sorter=order)
        for at, where in enumerate(place.tolist()):
            if where < order.size and self._keys[order[where]] == keys[at]:
                path = self._paths[self._index[order[where]]]
            else:
                path = self._link(int(pids[at]), int(fds[at]))
            index[at] = paths.setdefault(path, len(paths))
            kinds[at] = kind_number(kind_of(int(modes[at]), path))
        if now >= self._refresh_s:
            cost = time.monotonic() - now
            self._refresh_s = now + max(_REFRESH_S, cost * _REFRESH_SHARE)
        self._keys, self._index, self._kinds = keys, index, kinds
        self._paths = tuple(paths)
        return index, kinds, self._paths

    def _link(self, pid: int, fd: int) -> str:
        process = self._procfs.root / str(pid)
        with contextlib.suppress(OSError):
            return os.fspath((process / f"fd/{fd}").readlink())
        # The main thread may have ended, and its descriptors are listed under the others only.
        with contextlib.suppress(OSError):
            for tid in self._procfs.threads(pid):
                with contextlib.suppress(OSError):
                    return os.fspath((process / f"task/{tid}/fd/{fd}").readlink())
        return ""


def _mixed(numbers: U64Array) -> U64Array:
    """Spread the bits of numbers (the finalizer of SplitMix64)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
