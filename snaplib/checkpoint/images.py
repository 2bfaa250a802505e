"""CRIU's images of memory: their names, and those of memory that has no pages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from snaplib.criu.pagemap import ENTRY_DTYPE, pagemap_image
from snaplib.store import Space

__all__ = ["pagemap_name", "write_empty_images"]

#: Space.kind of a shared memory; everything else is a process.
_SHARED_MEMORY = 2

#: Numbers of pages images from here on are of memory without pages; the others are given when it is restored.
_EMPTY_PAGES_ID = 1 << 20


def pagemap_name(space: Space) -> str:
    """Return the name of the image that says which pages a memory has."""
    return f"pagemap-{'shmem-' if space.kind == _SHARED_MEMORY else ''}{space.id}.img"


def write_empty_images(images: Path, spaces: Iterable[Space]) -> None:
    """Write the images of memory without pages, which CRIU cannot do without and a page log has no trace of.

    Args:
        images: The folder of images.
        spaces: The memory: shared memory that was never touched, for example.
    """
    for number, space in enumerate(spaces, start=_EMPTY_PAGES_ID):
        image = pagemap_image(number, np.empty(0, ENTRY_DTYPE))
        (images / pagemap_name(space)).write_bytes(image)
        (images / f"pages-{number}.img").touch()
