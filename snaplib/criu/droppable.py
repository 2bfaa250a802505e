"""Droppable memory in CRIU's images, for kernels that have none.

Since Linux commit 9651fcedf7b9 (in v6.11) the C library keeps the state of its random numbers in such memory
(MAP_DROPPABLE of mmap(2)): nothing of it is in a dump, and a child of fork(2) finds it empty.
"""

from __future__ import annotations

from pathlib import Path

from snaplib.criu.binary import Criu
from snaplib.criu.images import rewrite_entries
from snaplib.criu.protocol import image_messages

__all__ = ["without_droppable_memory"]

# Of mmap(2) and madvise(2) (Linux: include/uapi/linux/mman.h, include/uapi/asm-generic/mman-common.h).
_MAP_PRIVATE = 0x02
_MAP_DROPPABLE = 0x08
_MADV_WIPEONFORK = 18


def without_droppable_memory(criu: Criu, images: Path) -> None:
    """Have droppable memory restored as private memory that a child of fork(2) finds empty.

    Args:
        criu: The CRIU that will restore.
        images: The folder of images.

    Raises:
        ValueError: An image is damaged.
    """
    message = image_messages(criu, "mm").mm_entry
    for path in sorted(images.glob("mm-*.img")):
        rewrite_entries(path, message, _kept)


def _kept(memory: object) -> bool:
    changed = False
    for vma in memory.vmas:  # type: ignore[attr-defined] # of pycriu
        if vma.flags & _MAP_DROPPABLE:
            vma.flags = vma.flags & ~_MAP_DROPPABLE | _MAP_PRIVATE
            vma.madv |= 1 << _MADV_WIPEONFORK
            changed = True
    return changed
