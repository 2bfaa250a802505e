"""Large files past the page cache: whatever comes, from wherever, is there at its offset."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest

from snaplib.store.bulk import BLOCK_BYTES, BulkFile, buffers


@pytest.mark.parametrize(("count", "size"), [(3, 1 << 20), (1, 4 << 20), (2, BLOCK_BYTES)])
def test_buffers(count, size):
    """Each has its size and is its own; where they fill huge pages, they begin with one."""
    made = buffers(count, size)
    assert [len(one) for one in made] == [size] * count
    for number, one in enumerate(made):
        one[:] = bytes([number]) * size
    assert [bytes(one) for one in made] == [bytes([number]) * size for number in range(count)]
    address = np.frombuffer(made[0], np.uint8).ctypes.data
    assert address % ((2 << 20) if count * size >= 2 << 20 else BLOCK_BYTES) == 0


def test_write_and_read(tmp_path):
    """Aligned or not, of whole blocks or not, small and large in turn."""
    chance = random.Random(23)
    (aligned,) = buffers(1, 4 << 20)
    aligned[:] = chance.randbytes(len(aligned))
    sizes = [5, BLOCK_BYTES, 3 << 20, 100_001, (2 << 20) + 1]
    pieces = [chance.randbytes(size) for size in sizes]
    pieces += [aligned[:size] for size in sizes] + [aligned[3:4000]]
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        file, offset, places = BulkFile(fd), 0, []
        for piece in pieces:
            file.write(piece, offset)
            places.append(offset)
            offset += -(-len(piece) // BLOCK_BYTES) * BLOCK_BYTES
        assert (tmp_path / "file").stat().st_size == offset
        (room,) = buffers(1, 4 << 20)
        for piece, place in zip(pieces, places, strict=True):
            assert file.read_into(room, place, len(piece)) == len(piece)
            assert room[: len(piece)] == memoryview(piece)
    finally:
        os.close(fd)
