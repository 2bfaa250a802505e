"""CRIU's pagemap images: which pages of a process or a shared memory a pages image holds.

An image is two magic words, then messages, each led by its 32-bit size: a head naming the pages image, and one entry
a run of pages (CRIU: images/pagemap.proto, criu/include/magic.h).
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

__all__ = ["ENTRY_DTYPE", "PAGE_BYTES", "PE_LAZY", "PE_PARENT", "PE_PRESENT", "pagemap_image"]

PAGE_BYTES = 4096

#: Flags of an entry (CRIU: criu/include/pagemap.h): taken from the parent; may be restored lazily; has its pages here.
PE_PARENT = 1
PE_LAZY = 2
PE_PRESENT = 4

#: A run of pages: its first address in bytes, its length in pages, its PE_* flags.
ENTRY_DTYPE = np.dtype([("vaddr", "<u8"), ("pages", "<u8"), ("flags", "<u4")])

_IMG_COMMON_MAGIC = 0x54564319
_PAGEMAP_MAGIC = 0x56084025

# Each number is written as a varint of fixed width, padded with continuation bits, which protobuf allows: so all
# entries have one size and numpy writes them without a loop.
_VADDR_WIDTH = 10
_PAGES_WIDTH = 5
_PAGES64_WIDTH = 10


def pagemap_image(pages_id: int, entries: npt.NDArray[np.void]) -> bytes:
    """Return a pagemap image.

    Args:
        pages_id: N of the ``pages-N.img`` that holds the pages.
        entries: ``ENTRY_DTYPE``, shape (n,), in the order in which the pages lie in the pages image.
    """
    head = b"\x08" + _varint(np.array([pages_id], np.uint64), 5).tobytes()
    fields = (
        (0x08, entries["vaddr"], _VADDR_WIDTH),
        (0x10, np.minimum(entries["pages"], np.uint64(0xFFFFFFFF)), _PAGES_WIDTH),
        (0x20, entries["flags"], 1),
        (0x28, entries["pages"], _PAGES64_WIDTH),
    )
    size = sum(1 + width for _tag, _values, width in fields)
    rows = np.zeros((len(entries), 4 + size), np.uint8)
    rows[:, :4] = np.frombuffer(struct.pack("<I", size), np.uint8)
    column = 4
    for tag, values, width in fields:
        rows[:, column] = tag
        rows[:, column + 1 : column + 1 + width] = _varint(values.astype(np.uint64), width)
        column += 1 + width
    magic = struct.pack("<II", _IMG_COMMON_MAGIC, _PAGEMAP_MAGIC)
    return magic + struct.pack("<I", len(head)) + head + rows.tobytes()


def _varint(values: npt.NDArray[np.uint64], width: int) -> npt.NDArray[np.uint8]:
    """Return numbers as varints of one width: shape (n, width), dtype uint8."""
    shifts = np.arange(width, dtype=np.uint64) * np.uint64(7)
    digits = ((values[:, None] >> shifts) & np.uint64(0x7F)).astype(np.uint8)
    digits[:, :-1] |= 0x80
    return digits
