"""Frames: how a piece of a task's memory is stored.

A frame is some pages after one another, stored as they are, as one zstd frame, or not at all where
every byte is zero. Nothing marks a frame in its object: the index says where it is, how long, of
which kind, and its xxh3.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING

import numpy as np
import xxhash

if TYPE_CHECKING:
    from snaplib.store.backend import Data

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = [
    "RAW",
    "ZERO",
    "ZSTD",
    "checksum",
    "compress",
    "decode",
    "digest",
    "is_zero",
    "keep_buffers",
    "zstd",
]

#: The kinds of frames, as they are in an index.
RAW = 0
ZSTD = 1
ZERO = 2

#: Not of `secrets`, which brings OpenSSL.
_SEED = int.from_bytes(os.urandom(8), "little")

#: Compression that saves less is not worth the time that reading takes.
WORTH = 0.95


@functools.cache
def keep_buffers() -> None:
    """Have the allocator keep the buffers of one frame for the next.

    Otherwise every frame's buffers go back to the kernel and are faulted in again, which costs more
    than fast compression.  That glibc raises its thresholds to what is freed is in mallopt(3).
    """
    bytes(31 << 20)


def checksum(stored: Data) -> int:
    """Return the xxh3 (64 bits) of stored bytes."""
    return xxhash.xxh3_64_intdigest(stored)


def digest(stored: Data) -> tuple[int, int]:
    """Return the checksum of stored bytes, and 128 bits that tell them from all others in this process.

    The latter are seeded at random: what is in a task's memory may come from somebody who wants two frames to be taken
    for the same.
    """
    return checksum(stored), xxhash.xxh3_128_intdigest(stored, _SEED)


def compress(raw: Data, level: int) -> bytes | None:
    """Return a frame's bytes compressed, or None where that saves too little.

    Args:
        raw: The frame.
        level: zstd's level; negative ones are faster.
    """
    stored = zstd.compress(raw, level)
    return stored if len(stored) <= len(raw) * WORTH else None


def is_zero(raw: Data) -> bool:
    """Tell whether every byte of a frame of whole pages is zero."""
    words = np.frombuffer(raw, dtype=np.uint64)
    # One word a page says no at once for nearly every frame that is not.
    return not words[::512].any() and not words.any()


def decode(kind: int, stored: Data, raw_bytes: int) -> Data:
    """Return a frame's bytes.

    Args:
        kind: RAW, ZSTD or ZERO.
        stored: What is stored of it.
        raw_bytes: How long it must be.

    Raises:
        ValueError: The bytes are no frame of that kind and length.
    """
    if kind == RAW:
        raw: Data = stored
    elif kind == ZERO:
        raw = bytes(raw_bytes) if not stored else b""
    elif kind == ZSTD:
        decompressor = zstd.ZstdDecompressor()
        try:
            # Bounded: a damaged header must not make us allocate what it says.
            raw = decompressor.decompress(stored, max_length=raw_bytes + 1)
        except zstd.ZstdError as error:
            raise ValueError(str(error)) from error
        if not decompressor.eof or decompressor.unused_data:
            raise ValueError("not one whole zstd frame")
    else:
        raise ValueError(f"frames of kind {kind} are not known")
    if len(raw) != raw_bytes:
        raise ValueError(f"a frame of {len(raw)} bytes instead of {raw_bytes}")
    return raw
