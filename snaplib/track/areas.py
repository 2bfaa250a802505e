"""What part of a process's address space can change, and what kind of memory each part is."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import attrs

from snaplib.track.records import MemoryKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from snaplib.kernel import Mapping

__all__ = ["Area", "areas_of", "groups", "joined", "stretches"]

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
        memfd: Whether its file is shared memory that processes may have open.
        executable: Whether the process may run what is in it.
    """

    start: int
    end: int
    kind: MemoryKind
    writable: bool
    file: tuple[int, int]
    memfd: bool = False
    executable: bool = False

    def may_join(self, other: Area) -> bool:
        """Whether this and another one were or may become one mapping, if only protections differ.

        Code of programs is not made writable and back.
        """
        return (
            (self.end == other.start or other.end == self.start)
            and self.kind is other.kind
            and self.file == other.file
            and not (self.kind is MemoryKind.PRIVATE_FILE and (self.executable or other.executable))
        )


def areas_of(mappings: Iterable[Mapping]) -> tuple[Area, ...]:
    """Return the areas that hold state of a task, ascending.

    Left out are those the kernel fills, and files mapped shared for reading only, unless they are
    part of a mapping for writing: what they hold is the file's.
    """
    areas: list[Area] = []
    only_read: list[Area] = []
    for mapping in mappings:
        if mapping.path in _KERNEL_MADE:
            continue
        kind = _kind(mapping)
        area = Area(
            start=mapping.start,
            end=mapping.end,
            kind=kind,
            writable=mapping.writable,
            file=(mapping.dev, mapping.inode),
            memfd=kind is MemoryKind.SHARED and mapping.path.startswith("/memfd:"),
            executable="x" in mapping.perms,
        )
        if kind is MemoryKind.SHARED_FILE and not mapping.writable:
            only_read = [*only_read, area] if only_read and area.may_join(only_read[-1]) else [area]
            if areas and areas[-1].may_join(only_read[0]):
                areas += only_read
                only_read = []
            continue
        if only_read and area.may_join(only_read[-1]):
            areas += only_read
        only_read = []
        areas.append(area)
    return tuple(areas)


def _kind(mapping: Mapping) -> MemoryKind:
    if not mapping.shared:
        return MemoryKind.PRIVATE_FILE if mapping.file_backed else MemoryKind.PRIVATE
    # The kernel keeps these on a mount of its own, where no file ever has a name.
    if mapping.deleted and mapping.path.startswith(_SHARED_MEMORY):
        return MemoryKind.SHARED
    return MemoryKind.SHARED_FILE if mapping.file_backed else MemoryKind.SHARED


def stretches(areas: Iterable[Area]) -> Iterable[list[Area]]:
    """Yield areas of one kind that touch each other together; the areas must be ascending."""
    stretch: list[Area] = []
    for area in areas:
        last = stretch[-1] if stretch else area
        # Two memfds have two times of writing.
        apart = area.start != last.end or area.kind is not last.kind or area.memfd
        if stretch and apart:
            yield stretch
            stretch = []
        stretch.append(area)
    if stretch:
        yield stretch


def joined(stretch: Sequence[Area]) -> Area:
    """Return areas that touch each other as one; it says of the file what the first says."""
    return attrs.evolve(stretch[0], end=stretch[-1].end)


def groups(areas: Iterable[Area]) -> Iterable[list[Area]]:
    """Yield stretches of areas of one kind, so that one question can be asked of each stretch."""
    for _, group in itertools.groupby(areas, key=lambda area: area.kind):
        yield list(group)
