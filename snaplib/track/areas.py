"""What part of a process's address space can change, and what kind of memory each part is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from snaplib.track.records import MemoryKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from snaplib.kernel import Mapping

__all__ = ["Area", "areas_of"]

#: Mappings that the kernel makes for every process and fills itself.
_KERNEL_MADE = frozenset({"[vdso]", "[vvar]", "[vvar_vclock]", "[vsyscall]"})

#: What the kernel calls shared memory that has no file a user could name.
_SHARED_MEMORY = ("/memfd:", "/SYSV", "/dev/zero", "/anon_hugepage")


@attrs.frozen
class Area:
    """One mapping that has to be watched; equal if nothing about it changed.

    Attributes:
        start: First address.
        end: Address after the last.
        kind: What memory it is.
        writable: Whether the process may write to it now.
        file: Device and inode of its file; zeros without.
    """

    start: int
    end: int
    kind: MemoryKind
    writable: bool
    file: tuple[int, int]


def areas_of(mappings: Iterable[Mapping]) -> tuple[Area, ...]:
    """Return the areas that hold state of a task, ascending.

    Left out are those the kernel fills, and files mapped shared for reading only: what they hold
    is the file's.
    """
    areas = []
    for mapping in mappings:
        if mapping.path in _KERNEL_MADE:
            continue
        kind = _kind(mapping)
        if kind is MemoryKind.SHARED_FILE and not mapping.writable:
            continue
        areas.append(
            Area(
                start=mapping.start,
                end=mapping.end,
                kind=kind,
                writable=mapping.writable,
                file=(mapping.dev, mapping.inode),
            )
        )
    return tuple(areas)


def _kind(mapping: Mapping) -> MemoryKind:
    if not mapping.shared:
        return MemoryKind.PRIVATE_FILE if mapping.file_backed else MemoryKind.PRIVATE
    # The kernel keeps these on a mount of its own, where no file ever has a name.
    if mapping.deleted and mapping.path.startswith(_SHARED_MEMORY):
        return MemoryKind.SHARED
    return MemoryKind.SHARED_FILE if mapping.file_backed else MemoryKind.SHARED
