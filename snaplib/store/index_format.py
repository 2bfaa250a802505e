"""How an index is stored: a header, and the two arrays as they are in memory, compressed.

Loading takes one decompression and no loop.
"""

from __future__ import annotations

import struct

import numpy as np
import xxhash

from snaplib.errors import StoreTooNew
from snaplib.store.codec import RAW, ZSTD, decode, zstd
from snaplib.store.index import FRAME, PAGE_BYTES, RUN, Index

__all__ = ["index_from_bytes", "index_to_bytes"]

_MAGIC = b"snapidx\n"
_VERSION = 1
#: Magic, version, page size, number of runs, number of frames, kind of body, its stored size, its
#: xxh3; behind it the xxh3 of all this.
_HEADER = struct.Struct("<8sIIQQQQQ")
#: What a body may be in any case, and how many times what is stored of it: no two runs are the same, so that an honest
#: index takes at least a byte or two for each.
_SMALL_BYTES = 64 << 20
_MOST_RATIO = 64
_CHECKSUM = struct.Struct("<Q")
_BODY_AT = _HEADER.size + _CHECKSUM.size


def index_to_bytes(index: Index) -> bytes:
    """Return an index as it is stored."""
    body: bytes = index.runs.tobytes() + index.frames.tobytes()
    stored, kind = zstd.compress(body, 1), ZSTD
    if len(stored) >= len(body):
        stored, kind = body, RAW
    header = _HEADER.pack(
        _MAGIC,
        _VERSION,
        PAGE_BYTES,
        len(index.runs),
        len(index.frames),
        kind,
        len(stored),
        xxhash.xxh3_64_intdigest(stored),
    )
    return header + _CHECKSUM.pack(xxhash.xxh3_64_intdigest(header)) + stored


def index_from_bytes(data: bytes, pages: int | None = None) -> Index:
    """Return the index that was stored.

    Args:
        data: What was stored.
        pages: How many pages it must be of; None where nobody says.

    Raises:
        StoreTooNew: A newer snaplib stored it.
        ValueError: It is damaged; the message says at which offset.
    """
    if len(data) < _BODY_AT or not data.startswith(_MAGIC):
        raise ValueError("offset 0: not an index")
    _, version, page_bytes, runs, frames, kind, stored_bytes, checksum = _HEADER.unpack_from(data)
    if version > _VERSION:
        raise StoreTooNew(f"an index of format {version}; this snaplib knows {_VERSION}")
    if (
        _CHECKSUM.pack(xxhash.xxh3_64_intdigest(data[: _HEADER.size]))
        != data[_HEADER.size : _BODY_AT]
    ):
        raise ValueError("offset 0: the header's checksum is wrong")
    if page_bytes != PAGE_BYTES:
        raise ValueError(f"offset 12: pages of {page_bytes} bytes instead of {PAGE_BYTES}")
    stored = data[_BODY_AT:]
    if len(stored) != stored_bytes or xxhash.xxh3_64_intdigest(stored) != checksum:
        raise ValueError(f"offset {_BODY_AT}: the checksum of the entries is wrong")
    body_bytes = runs * RUN.itemsize + frames * FRAME.itemsize
    if body_bytes > max(_SMALL_BYTES, _MOST_RATIO * len(stored)):
        raise ValueError(f"offset 16: {runs} runs and {frames} frames are more than there can be")
    # Each of them has a page that the other has too.
    if pages is not None and max(runs, frames) > pages:
        raise ValueError(f"offset 16: {runs} runs and {frames} frames of {pages} pages")
    body = decode(kind, stored, body_bytes)
    index = Index(
        np.frombuffer(body, RUN, runs),
        np.frombuffer(body, FRAME, frames, offset=runs * RUN.itemsize),
    )
    if pages is not None and index.pages != pages:
        raise ValueError(f"{index.pages} pages instead of {pages}")
    return index
