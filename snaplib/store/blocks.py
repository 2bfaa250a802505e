"""Blocks: pieces of memory that are known by what is in them, so that what is in the store already is not stored again.

A block is 16 pages after one another that begin at a multiple of their size, wherever that is in a frame. Two are the
same if their BLAKE3 is, which nobody can bring about on purpose: what is in a task's memory may come from anybody.
Addresses count only in so far as both memories are cut at the same ones.
"""

from __future__ import annotations

import struct
import threading
from array import array
from typing import TYPE_CHECKING

import attrs
import blake3
import numpy as np
import numpy.typing as npt

from snaplib.errors import StoreTooNew
from snaplib.store.index import PAGE_BYTES
from snaplib.store.places import PLACE_SHIFT, frame_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "BLOCK_PAGES",
    "MOST_BLOCKS",
    "BlockFinder",
    "Blocks",
    "Digests",
    "block_digests",
    "blocks_from_bytes",
    "blocks_to_bytes",
]

BLOCK_PAGES = 16
_BLOCK_BYTES = BLOCK_PAGES * PAGE_BYTES
_DIGEST_BYTES = 24
_WORDS = _DIGEST_BYTES // 8
#: The most that one log knows: those of 32 GiB take 16 MiB. What is beyond is stored anew each time.
MOST_BLOCKS = 1 << 19

_MAGIC = b"snapblk\n"
_VERSION = 1
#: Magic, version, pages a block, number of blocks.
_HEADER = struct.Struct("<8sIIQ")
_ROW = np.dtype([("position", "<u8"), ("digest", "<u8", (_WORDS,))])

#: Digests: uint64, shape (n, 3).
Digests = npt.NDArray[np.uint64]
Places = npt.NDArray[np.uint64]


def block_digests(memory: memoryview, offsets: Sequence[int]) -> Digests:
    """Return the digests of blocks.

    Args:
        memory: What they are in.
        offsets: Where in it each begins, in bytes.
    """
    found = [blake3.blake3(memory[at : at + _BLOCK_BYTES]).digest(_DIGEST_BYTES) for at in offsets]
    return np.frombuffer(b"".join(found), np.uint64).reshape(-1, _WORDS)


@attrs.frozen(eq=False)
class Blocks:
    """Which blocks there are, and where.

    Attributes:
        places: uint64, shape (n,): the place of the first page of each, as in `snaplib.store.places`; or its position
            in an index.
        digests: uint64, shape (n, 3): what is in them.
    """

    places: Places = attrs.field(factory=lambda: np.empty(0, np.uint64))
    digests: Digests = attrs.field(factory=lambda: np.empty((0, _WORDS), np.uint64))

    def __len__(self) -> int:
        """How many there are."""
        return len(self.places)

    def chosen(self, which: npt.NDArray[np.bool_]) -> Blocks:
        """Return some of them.

        Args:
            which: Bool, shape (n,).
        """
        return self if bool(which.all()) else Blocks(self.places[which], self.digests[which])

    def moved(self, frames: npt.NDArray[np.int64]) -> Blocks:
        """Return those that are in frames which stay, where they are then.

        Args:
            frames: int64: the new number of each frame by its old one, -1 for those that go.
        """
        number = frames[frame_of(self.places)]
        inside = self.places & np.uint64((1 << PLACE_SHIFT) - 1)
        places = (number.astype(np.uint64) << np.uint64(PLACE_SHIFT)) | inside
        return Blocks(places, self.digests).chosen(number >= 0)


class BlockFinder:
    """Finds blocks of earlier snapshots, and notes what comes, for later ones; any thread may use it.

    Each is found once: in an index no two pages are in the same place.

    Args:
        known: What there is already.
        find: Whether those may be found; else they are only kept.
    """

    def __init__(self, known: Blocks | None = None, *, find: bool = True) -> None:
        self._lock = threading.Lock()
        self._blocks = known or Blocks()
        #: Those that may be found, in the order of the first words of their digests, each content once; and which of
        #: them have been.
        self._sorted = _sorted(self._blocks) if find else Blocks()
        self._taken = np.zeros(len(self._sorted), np.bool_)
        self._places = array("Q")
        self._digests = bytearray()

    @property
    def finds(self) -> bool:
        """Whether anything may be found."""
        return len(self._sorted) > 0

    @property
    def found_pages(self) -> int:
        """How many pages have been found."""
        return int(self._taken.sum()) * BLOCK_PAGES

    def find(self, digests: Digests) -> tuple[npt.NDArray[np.bool_], Places]:
        """Look for blocks.

        Args:
            digests: What is in them, shape (n, 3).

        Returns:
            Bool, shape (n,): which are there; and where those are.
        """
        found = np.zeros(len(digests), np.bool_)
        with self._lock:
            known = self._sorted
            if not len(known):
                return found, known.places
            at = np.searchsorted(known.digests[:, 0], digests[:, 0])
            at = np.minimum(at, len(known) - 1)
            same = (known.digests[at] == digests).all(axis=1) & ~self._taken[at]
            # Of equal ones the first.
            those = np.flatnonzero(same)
            found[those[np.unique(at[those], return_index=True)[1]]] = True
            self._taken[at[found]] = True
        return found, known.places[at[found]]

    def note(self, places: Places, digests: Digests) -> None:
        """Note blocks that are stored.

        Args:
            places: Where.
            digests: What is in them.
        """
        with self._lock:
            room = max(0, MOST_BLOCKS - len(self._blocks) - len(self._places))
            self._places.frombytes(places[:room].astype(np.uint64).tobytes())
            self._digests += digests[:room].tobytes()

    def all(self) -> Blocks:
        """Return all that are known, whether they may be found or not."""
        with self._lock:
            places = np.array(self._places, np.uint64)
            digests = np.frombuffer(bytes(self._digests), np.uint64).reshape(-1, _WORDS)
            if not len(self._blocks):
                return Blocks(places, digests)
            return Blocks(
                np.concatenate((self._blocks.places, places)),
                np.concatenate((self._blocks.digests, digests)),
            )

    def hide(self, frames: npt.NDArray[np.bool_]) -> None:
        """Find nothing any more in some frames.

        Args:
            frames: Bool: of each frame whether it is meant.
        """
        with self._lock:
            left = ~frames[frame_of(self._sorted.places)]
            self._sorted, self._taken = self._sorted.chosen(left), self._taken[left]

    def drop(self, frames: npt.NDArray[np.bool_]) -> None:
        """Forget what was noted of some frames, which are lost.

        Args:
            frames: Bool: of each frame whether it is meant.
        """
        with self._lock:
            places = np.array(self._places, np.uint64)
            digests = np.frombuffer(bytes(self._digests), np.uint64).reshape(-1, _WORDS)
            left = Blocks(places, digests).chosen(~frames[frame_of(places)])
            self._places = array("Q", left.places.tobytes())
            self._digests = bytearray(left.digests.tobytes())


def _sorted(blocks: Blocks) -> Blocks:
    order = np.argsort(blocks.digests[:, 0], kind="stable")
    words = blocks.digests[order, 0]
    # Of equal ones, and of those that only begin in the same way, the first is enough.
    first = np.ones(len(words), np.bool_)
    first[1:] = words[1:] != words[:-1]
    return Blocks(blocks.places[order[first]], blocks.digests[order[first]])


def blocks_to_bytes(blocks: Blocks) -> bytes:
    """Return blocks as they are stored.

    Args:
        blocks: Their places are positions in the sequence of an index.
    """
    rows = np.empty(len(blocks), _ROW)
    order = np.argsort(blocks.places, kind="stable")
    rows["position"], rows["digest"] = blocks.places[order], blocks.digests[order]
    return _HEADER.pack(_MAGIC, _VERSION, BLOCK_PAGES, len(rows)) + rows.tobytes()


def blocks_from_bytes(data: bytes, starts: npt.NDArray[np.uint64]) -> Blocks:
    """Return the blocks that were stored, their places by frame.

    Args:
        data: What was stored.
        starts: uint64, shape (m + 1,): where each frame of the index begins in its sequence, and the end.

    Raises:
        StoreTooNew: A newer snaplib stored it.
        ValueError: It is damaged.
    """
    if len(data) < _HEADER.size or not data.startswith(_MAGIC):
        raise ValueError("offset 0: not blocks")
    _magic, version, pages, count = _HEADER.unpack_from(data)
    if version > _VERSION or pages != BLOCK_PAGES:
        raise StoreTooNew(f"blocks of format {version}, of {pages} pages each")
    if count > MOST_BLOCKS or len(data) != _HEADER.size + count * _ROW.itemsize:
        raise ValueError(f"offset 16: not {count} blocks")
    rows = np.frombuffer(data, _ROW, count, _HEADER.size)
    positions = rows["position"]
    # In this order: sums of what lies cannot overflow then.
    if bool((positions >= starts[-1]).any()):
        raise ValueError("a block lies beyond the last frame")
    frame = np.searchsorted(starts, positions, "right").astype(np.int64) - 1
    if bool((starts[frame + 1] - positions < pages).any()):
        raise ValueError("a block is not within one frame")
    places = (frame.astype(np.uint64) << np.uint64(PLACE_SHIFT)) | (positions - starts[frame])
    return Blocks(places, np.ascontiguousarray(rows["digest"]))
