"""The memory mappings of a process: `/proc/PID/maps` and `/proc/PID/smaps`.

The formats are those of proc_pid_maps(5) and proc_pid_smaps(5); the names of the VmFlags are
in the kernel's Documentation/filesystems/proc.rst.
"""

from __future__ import annotations

import os
from typing import Any

import attrs

__all__ = ["Mapping", "parse_maps", "parse_smaps"]

_DELETED = " (deleted)"

#: Line of smaps -> attribute of Mapping. All are in kB.
_SMAPS_FIELDS = {
    b"Rss": "rss_bytes",
    b"Pss": "pss_bytes",
    b"Shared_Dirty": "shared_dirty_bytes",
    b"Private_Dirty": "private_dirty_bytes",
    b"Anonymous": "anonymous_bytes",
    b"AnonHugePages": "anonymous_huge_bytes",
    b"Shared_Hugetlb": "shared_hugetlb_bytes",
    b"Private_Hugetlb": "private_hugetlb_bytes",
    b"Swap": "swap_bytes",
    b"Locked": "locked_bytes",
    b"KernelPageSize": "page_bytes",
}

#: First bytes of a mapping's head line; the other lines of smaps begin with a capital.
_HEXADECIMAL = frozenset(b"0123456789abcdef")


@attrs.frozen
class Mapping:
    """One mapping (VMA) of a process.

    Attributes:
        start: First address.
        end: Address after the last.
        perms: Four letters: ``r``, ``w``, ``x`` or ``-``, and ``p`` private or ``s`` shared.
        offset: Offset in the file of its first byte.
        dev: Device number of the file, as ``os.makedev`` makes it; 0 without a file.
        inode: Inode of the file; 0 without a file.
        path: The file as the process sees it; or a name in brackets, such as ``[heap]``; or empty
            for anonymous memory. A file without a name any more ends in `` (deleted)``.
        vm_flags: Two-letter flags (smaps only, else None).
        rss_bytes: Resident (this and all below: smaps only, else None).
        pss_bytes: Resident, each page divided by the number of processes that map it.
        shared_dirty_bytes: Dirty and mapped elsewhere as well.
        private_dirty_bytes: Dirty and mapped only here.
        anonymous_bytes: Resident and not the file's.
        anonymous_huge_bytes: Of these in transparent huge pages.
        shared_hugetlb_bytes: In hugetlb pages shared with others; not in ``rss_bytes``.
        private_hugetlb_bytes: In hugetlb pages mapped only here; not in ``rss_bytes``.
        swap_bytes: Anonymous and in swap.
        locked_bytes: Locked with mlock(2).
        page_bytes: Size of a page of this mapping.
    """

    start: int
    end: int
    perms: str
    offset: int
    dev: int
    inode: int
    path: str
    vm_flags: frozenset[str] | None = None
    rss_bytes: int | None = None
    pss_bytes: int | None = None
    shared_dirty_bytes: int | None = None
    private_dirty_bytes: int | None = None
    anonymous_bytes: int | None = None
    anonymous_huge_bytes: int | None = None
    shared_hugetlb_bytes: int | None = None
    private_hugetlb_bytes: int | None = None
    swap_bytes: int | None = None
    locked_bytes: int | None = None
    page_bytes: int | None = None

    @property
    def size_bytes(self) -> int:
        """Length of the address range."""
        return self.end - self.start

    @property
    def readable(self) -> bool:
        """Whether the process may read it."""
        return self.perms[0] == "r"

    @property
    def writable(self) -> bool:
        """Whether the process may write to it."""
        return self.perms[1] == "w"

    @property
    def executable(self) -> bool:
        """Whether the process may execute it."""
        return self.perms[2] == "x"

    @property
    def shared(self) -> bool:
        """Whether writes go to the file or to other processes."""
        return self.perms[3] == "s"

    @property
    def file_backed(self) -> bool:
        """Whether a file is mapped; also true of shared memory, whose file has no visible name."""
        return self.inode != 0 or self.dev != 0

    @property
    def deleted(self) -> bool:
        """Whether its file has lost its name."""
        return self.file_backed and self.path.endswith(_DELETED)


def parse_maps(content: bytes) -> tuple[Mapping, ...]:
    """Parse the content of a `maps` file, in address order.

    Raises:
        ValueError: It has not the form of proc_pid_maps(5).
    """
    # Not splitlines(): a path may hold a carriage return. A newline in it is printed as \012.
    return tuple(Mapping(*_head(line)) for line in content.split(b"\n") if line)


def parse_smaps(content: bytes) -> tuple[Mapping, ...]:
    """Parse the content of a `smaps` file, in address order.

    Raises:
        ValueError: It has not the form of proc_pid_smaps(5).
    """
    mappings: list[Mapping] = []
    flags_seen: dict[bytes, frozenset[str]] = {}
    head: tuple[int, int, str, int, int, int, str] | None = None
    more: dict[str, Any] = {}
    for line in content.split(b"\n"):
        if not line:
            continue
        if line[0] in _HEXADECIMAL:
            if head is not None:
                mappings.append(Mapping(*head, **more))
            head, more = _head(line), {}
            continue
        key, separator, value = line.partition(b":")
        if not separator:
            raise ValueError(f"not a line of smaps: {line[:80]!r}")
        if key == b"VmFlags":
            flags = flags_seen.get(value)
            if flags is None:
                flags = flags_seen[value] = frozenset(value.decode().split())
            more["vm_flags"] = flags
        elif (name := _SMAPS_FIELDS.get(key)) is not None:
            more[name] = int(value[:-3]) * 1024
    if head is not None:
        mappings.append(Mapping(*head, **more))
    return tuple(mappings)


def _head(line: bytes) -> tuple[int, int, str, int, int, int, str]:
    fields = line.split(None, 5)
    if len(fields) < 5:
        raise ValueError(f"not a line of maps: {line[:80]!r}")
    start, _, end = fields[0].partition(b"-")
    major, _, minor = fields[3].partition(b":")
    path = fields[5] if len(fields) == 6 else b""
    if b"\\012" in path:
        path = path.replace(b"\\012", b"\n")
    return (
        int(start, 16),
        int(end, 16),
        fields[1].decode(),
        int(fields[2], 16),
        os.makedev(int(major, 16), int(minor, 16)),
        int(fields[4]),
        os.fsdecode(path),
    )
