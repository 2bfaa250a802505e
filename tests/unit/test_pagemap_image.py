"""Pagemap images: an independent protobuf reader finds what was written."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from snaplib.criu.pagemap import ENTRY_DTYPE, PAGE_BYTES, pagemap_image

ENTRIES = st.lists(
    st.tuples(
        st.integers(0, 2**47 // PAGE_BYTES - 1).map(lambda page: page * PAGE_BYTES),
        st.integers(1, 2**40),
        st.integers(0, 7),
    )
)


def messages(image: bytes) -> Iterator[dict[int, int]]:
    """Read size-led messages of varint fields, as protobuf's encoding document says, one byte at a time."""
    assert struct.unpack_from("<II", image) == (0x54564319, 0x56084025)
    at = 8
    while at < len(image):
        (size,) = struct.unpack_from("<I", image, at)
        at += 4
        end, fields = at + size, {}
        while at < end:
            tag, at = varint(image, at)
            assert tag & 7 == 0
            fields[tag >> 3], at = varint(image, at)
        assert at == end
        yield fields


def varint(image: bytes, at: int) -> tuple[int, int]:
    """Return a number and where the next one begins."""
    value = shift = 0
    while True:
        byte = image[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            assert shift <= 70
            return value, at


@given(st.integers(1, 2**32 - 1), ENTRIES)
def test_round_trip(pages_id: int, rows: list[tuple[int, int, int]]) -> None:
    """Every address, length and flag comes back; the old 32-bit length is capped, the new one whole."""
    found = list(messages(pagemap_image(pages_id, np.array(rows, ENTRY_DTYPE))))
    assert found[0] == {1: pages_id}
    assert [(m[1], m[5], m[4]) for m in found[1:]] == rows
    assert [m[2] for m in found[1:]] == [min(pages, 2**32 - 1) for _vaddr, pages, _flags in rows]
