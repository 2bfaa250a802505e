"""The folder of a parent dump, as little of it as CRIU needs to dump only what changed since.

With a page server the parent's pages are the server's affair: CRIU leaves them out and says so (PE_PARENT).  Of the
parent it wants to know only when it was taken, so as not to take a process for another that had its pid before
(CRIU: criu/mem.c, detect_pid_reuse).
"""

from __future__ import annotations

import struct
import time
from pathlib import Path

__all__ = ["PARENT_FOLDER", "PARENT_NAMES", "write_bare_parent"]

#: What `write_bare_parent` makes in a folder of images, for CRIU's option ``parent_img``.
PARENT_FOLDER = "bare-parent"

#: What belongs to the parent in a folder of images and not to the dump: our folder, and CRIU's link to it.
PARENT_NAMES = frozenset({PARENT_FOLDER, "parent"})

# CRIU: criu/include/magic.h, criu/include/image.h, images/inventory.proto.
_INVENTORY_MAGIC = 0x58313116
_IMAGES_V1_1 = 2
_FIELD_IMG_VERSION = 0x08
_FIELD_DUMP_UPTIME = 0x40


def write_bare_parent(images: Path, *, boot_time_s: float | None = None) -> str:
    """Make the folder of a parent that has no pages.

    Processes that began later than it are dumped wholly.

    Args:
        images: The folder that CRIU will write its images to.
        boot_time_s: When the parent was taken, on CLOCK_BOOTTIME; now by default.

    Returns:
        What to give CRIU as ``parent_img``; it goes with ``track_mem``.
    """
    if boot_time_s is None:
        boot_time_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    entry = bytes([_FIELD_IMG_VERSION, _IMAGES_V1_1, _FIELD_DUMP_UPTIME])
    entry += _varint(int(boot_time_s * 1e6))
    folder = images / PARENT_FOLDER
    folder.mkdir(mode=0o700)
    # Unlike all others this image has no common magic number before its own.
    head = struct.pack("<II", _INVENTORY_MAGIC, len(entry))
    (folder / "inventory.img").write_bytes(head + entry)
    return PARENT_FOLDER


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)
