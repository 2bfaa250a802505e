"""Droppable memory where the kernel has none."""

from __future__ import annotations

import ctypes
import mmap
import struct
from pathlib import Path

from snaplib.criu import find_criu
from snaplib.criu.droppable import without_droppable_memory
from snaplib.criu.images import image_entries
from snaplib.criu.protocol import image_messages
from snaplib.kernel.memory import has_droppable_memory

_MAP_DROPPABLE = 8
_WIPED = 1 << 18


def test_only_droppable_memory_becomes_private_memory_that_a_fork_empties(tmp_path: Path) -> None:
    criu = find_criu()
    message = image_messages(criu, "mm").mm_entry
    entry = message()
    for name in entry.FindInitializationErrors():
        setattr(entry, name, 0)
    for start, flags, madv in ((0x1000, 0x28, 0), (0x2000, 0x2A, 4), (0x3000, 0x22, 0)):
        entry.vmas.add(
            start=start,
            end=start + 4096,
            pgoff=0,
            shmid=0,
            prot=3,
            flags=flags,
            status=513,
            fd=-1,
            madv=madv,
        )
    content = entry.SerializeToString()
    image = tmp_path / "mm-1.img"
    image.write_bytes(bytes(8) + struct.pack("<I", len(content)) + content)
    without_droppable_memory(criu, tmp_path)
    (changed,) = image_entries(image, message)
    assert [vma.flags for vma in changed.vmas] == [0x22, 0x22, 0x22]
    assert [vma.madv for vma in changed.vmas] == [_WIPED, _WIPED | 4, 0]


def test_whether_the_kernel_has_it_is_what_the_c_library_finds() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    found = libc.mmap(None, ctypes.c_size_t(4096), 3, _MAP_DROPPABLE | mmap.MAP_ANONYMOUS, -1, 0)
    assert has_droppable_memory() == (found not in (None, ctypes.c_void_p(-1).value))
