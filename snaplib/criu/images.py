"""CRIU's other images, as far as we look into them: what memory is mapped, where threads are, which files are open.

An image is two magic words and then messages, each led by its 32-bit size (CRIU: criu/protobuf.c).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from snaplib.criu.binary import Criu
from snaplib.criu.pagemap import PAGE_BYTES
from snaplib.criu.protocol import image_messages

__all__ = ["fillable_ranges", "image_entries", "lazy_ranges", "rewrite_entries"]

_HEAD_BYTES = 8
_SIZE = struct.Struct("<I")

# Of mmap(2) (Linux: include/uapi/asm-generic/mman.h).
_PROT_WRITE = 0x2
_MAP_PRIVATE = 0x02
_MAP_ANONYMOUS = 0x20
_MAP_GROWSDOWN = 0x100
_MAP_LOCKED = 0x2000
_MAP_HUGETLB = 0x40000

# VMA_* of CRIU: criu/include/image.h.
_ANON_PRIVATE = 1 << 9
#: vsyscall, vdso, System V and socket memory, vvar, AIO rings, shadow stacks, guards.
_SPECIAL = 1 << 2 | 1 << 3 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 15 | 1 << 16


def image_entries(path: Path, message: type[Any]) -> Iterator[Any]:
    """Yield the messages of an image.

    Args:
        path: The image.
        message: Their class, from `image_messages`.

    Raises:
        ValueError: The file is cut short or no such image.
    """
    for _content, entry in _parsed(path, path.read_bytes(), message):
        yield entry


def rewrite_entries(path: Path, message: type[Any], change: Callable[[Any], bool]) -> None:
    """Change messages of an image; the others stay as they are, byte by byte.

    Args:
        path: The image.
        message: Their class, from `image_messages`.
        change: Changes a message in place and says whether it has.

    Raises:
        ValueError: The file is cut short or no such image.
    """
    data = path.read_bytes()
    pieces = [data[:_HEAD_BYTES]]
    for content, entry in _parsed(path, data, message):
        new = entry.SerializeToString() if change(entry) else content
        pieces += [_SIZE.pack(len(new)), new]
    path.write_bytes(b"".join(pieces))


def _parsed(path: Path, data: bytes, message: type[Any]) -> Iterator[tuple[bytes, Any]]:
    at = _HEAD_BYTES
    while at < len(data):
        if at + _SIZE.size > len(data):
            raise ValueError(f"{path.name} is cut short")
        (size,) = _SIZE.unpack_from(data, at)
        at += _SIZE.size
        if at + size > len(data):
            raise ValueError(f"{path.name} is cut short")
        content = data[at : at + size]
        entry = message()
        try:
            entry.ParseFromString(content)
        except Exception as error:  # protobuf's own class depends on its version
            raise ValueError(f"{path.name}: {error}") from error
        yield content, entry
        at += size


def lazy_ranges(criu: Criu, images: Path, pids: Iterable[int]) -> dict[int, npt.NDArray[np.uint64]]:
    """Return the memory of processes that may come after they run again.

    CRIU watches private anonymous mappings for pages that are missing, and no others (CRIU: vma_entry_can_be_lazy);
    the page that a thread's stack pointer is in must be there from the beginning (CRIU: criu/mem.c, is_stack).

    Args:
        criu: The CRIU that will restore.
        images: The folder of images.
        pids: The processes, as the images name them.

    Returns:
        By process: uint64, shape (n, 2): begins and ends of addresses, ascending, whole pages.

    Raises:
        ValueError: An image is missing or damaged.
    """
    stacks = _stack_pages(criu, images)
    return {pid: _as_array(_without(stacks, criu, images, pid)) for pid in pids}


def _without(pages: list[int], criu: Criu, images: Path, pid: int) -> list[tuple[int, int]]:
    """Return the anonymous mappings of a process without some pages."""
    ranges = []
    for vma in _anonymous_mappings(criu, images, pid):
        begin = vma.start
        for page in pages:
            if vma.start <= page < vma.end:
                ranges.append((begin, page))
                begin = page + PAGE_BYTES
        ranges.append((begin, vma.end))
    return ranges


def fillable_ranges(
    criu: Criu, images: Path, pids: Iterable[int]
) -> dict[int, npt.NDArray[np.uint64]]:
    """Return the memory of processes that somebody else can write once CRIU has made it.

    That is private, anonymous and writable.  What two processes have at the same addresses may be shared by them until
    one writes: CRIU sees to that when it restores the pages of both (CRIU: criu/mem.c, prepare_cow_vmas).

    Args:
        criu: The CRIU that will restore.
        images: The folder of images.
        pids: The processes, as the images name them.

    Returns:
        By process: uint64, shape (n, 2): begins and ends of addresses, ascending, whole pages.

    Raises:
        ValueError: An image is missing or damaged.
    """
    mappings = {
        pid: [
            (vma.start, vma.end)
            for vma in _anonymous_mappings(criu, images, pid)
            if vma.prot & _PROT_WRITE and not vma.flags & _MAP_GROWSDOWN
        ]
        for pid in pids
    }
    owners = Counter(pair for pairs in mappings.values() for pair in pairs)
    return {
        pid: _as_array([pair for pair in pairs if owners[pair] == 1])
        for pid, pairs in mappings.items()
    }


def _anonymous_mappings(criu: Criu, images: Path, pid: int) -> Iterator[Any]:
    """Yield the mappings of a process, vma_entry, that are private and of nothing but pages."""
    path = images / f"mm-{pid}.img"
    try:
        (memory,) = image_entries(path, image_messages(criu, "mm").mm_entry)
    except FileNotFoundError as error:
        raise ValueError(f"{path.name} is missing") from error
    for vma in memory.vmas:
        private = vma.flags & (_MAP_PRIVATE | _MAP_ANONYMOUS) == _MAP_PRIVATE | _MAP_ANONYMOUS
        if not private or vma.flags & (_MAP_LOCKED | _MAP_HUGETLB):
            continue
        if vma.status & _ANON_PRIVATE and not vma.status & _SPECIAL:
            yield vma


def _as_array(ranges: list[tuple[int, int]]) -> npt.NDArray[np.uint64]:
    found = np.array([pair for pair in ranges if pair[0] < pair[1]], np.uint64).reshape(-1, 2)
    if (found % PAGE_BYTES).any() or (found.ravel()[1:] < found.ravel()[:-1]).any():
        raise ValueError("its mappings are out of order")
    return found


def _stack_pages(criu: Criu, images: Path) -> list[int]:
    """The pages that some thread's stack pointer is in; another process's cost nothing."""
    message = image_messages(criu, "core").core_entry
    pages = set()
    for path in images.glob("core-*.img"):
        for core in image_entries(path, message):
            for machine in ("thread_info", "ti_aarch64"):
                if core.HasField(machine):
                    pages.add(getattr(core, machine).gpregs.sp // PAGE_BYTES * PAGE_BYTES)
    return sorted(pages)
