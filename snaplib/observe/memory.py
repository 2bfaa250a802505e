"""How much memory of each kind a task has, and how much of it a dump would hold.

What CRIU dumps of a mapping is the rule of its `should_dump_page`: of private memory the pages that are
present or in swap and not the file's own (a page of zeros that was only read is not counted as resident
either); of shared memory without a named file all that its object holds, once however many map it; of
mapped files nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from snaplib.kernel import Mapping

__all__ = ["Memory", "SharedObject", "is_shared_object", "memory_of"]

#: Mappings that the kernel itself puts there. CRIU dumps only [vdso].
_KERNEL_MADE = frozenset(("[vdso]", "[vvar]", "[vvar_vclock]", "[vsyscall]"))

#: What /proc says instead of a name for memory that is shared without a file of its own.
_SHARED_OBJECTS = ("/dev/zero", "/memfd:", "/SYSV", "[anon_shmem:", "/anon_hugepage")


@attrs.frozen
class Memory:
    """Memory of a task by kind; resident unless said otherwise.

    A page that several members share counts for each of them, as it would in a dump, except in
    ``shmem_bytes``.

    Attributes:
        anon_bytes: Private and anonymous: arenas and other mappings.
        heap_bytes: The same in ``[heap]``.
        stack_bytes: The same in ``[stack]``; stacks of further threads are in ``anon_bytes``.
        file_cow_bytes: Of privately mapped files, the task's own copies.
        file_clean_bytes: Of privately mapped files, the file's pages: programs and libraries.
        file_shared_bytes: Of files mapped shared.
        shmem_bytes: Held by shared memory objects: memfd, SysV, shared anonymous; each once.
        hugetlb_bytes: In huge pages of hugetlbfs.
        swap_bytes: Private, in swap.
        kernel_bytes: ``[vdso]``.
        mappings: How many mappings there are; each costs a dump time.
        measured_s: When the kinds were last told apart (CLOCK_MONOTONIC): walking a task's page tables
            costs 25 ms a GB, so between two walks only the sums are read, and what they grew by counts
            as ``anon_bytes`` and ``file_clean_bytes``.
    """

    anon_bytes: int = 0
    heap_bytes: int = 0
    stack_bytes: int = 0
    file_cow_bytes: int = 0
    file_clean_bytes: int = 0
    file_shared_bytes: int = 0
    shmem_bytes: int = 0
    hugetlb_bytes: int = 0
    swap_bytes: int = 0
    kernel_bytes: int = 0
    mappings: int = 0
    measured_s: float = 0.0

    @property
    def resident_bytes(self) -> int:
        """All but swap."""
        return (
            self.anon_bytes
            + self.heap_bytes
            + self.stack_bytes
            + self.file_cow_bytes
            + self.file_clean_bytes
            + self.file_shared_bytes
            + self.shmem_bytes
            + self.hugetlb_bytes
            + self.kernel_bytes
        )

    @property
    def dumpable_bytes(self) -> int:
        """What a full dump would hold."""
        return (
            self.anon_bytes
            + self.heap_bytes
            + self.stack_bytes
            + self.file_cow_bytes
            + self.shmem_bytes
            + self.hugetlb_bytes
            + self.swap_bytes
            + self.kernel_bytes
        )

    def plus(self, other: Memory) -> Memory:
        """Return the sum of the kinds; ``measured_s`` is the older one's."""
        mine, others = attrs.asdict(self), attrs.asdict(other)
        sums = {kind: mine[kind] + others[kind] for kind in mine}
        sums["measured_s"] = min(self.measured_s, other.measured_s)
        return Memory(**sums)

    def grown(self, private_bytes: int, other_bytes: int) -> Memory:
        """Return it with sums that have changed since.

        Args:
            private_bytes: Growth of anonymous memory, may be negative.
            other_bytes: Growth of the rest.
        """
        # What is more than the anonymous memory there was has gone from the other private kinds.
        anon = self.anon_bytes + private_bytes
        heap = self.heap_bytes + min(anon, 0)
        return attrs.evolve(
            self,
            anon_bytes=max(anon, 0),
            heap_bytes=max(heap, 0),
            file_clean_bytes=max(self.file_clean_bytes + other_bytes, 0),
        )


@attrs.frozen
class SharedObject:
    """A shared memory object, by the device and inode of its hidden file."""

    device: int
    inode: int


def is_shared_object(mapping: Mapping) -> bool:
    """Return whether a mapping is of shared memory that a dump must hold."""
    return mapping.shared and mapping.path.startswith(_SHARED_OBJECTS)


def memory_of(
    mappings: Iterable[Mapping], measured_s: float = 0.0
) -> tuple[Memory, dict[SharedObject, Mapping]]:
    """Return the memory of one process by kind, without shared objects, and a mapping of each of those.

    Args:
        mappings: With what `smaps` tells of them.
        measured_s: When that was.
    """
    sums = dict.fromkeys((field.name for field in attrs.fields(Memory)), 0)
    objects: dict[SharedObject, Mapping] = {}
    for mapping in mappings:
        sums["mappings"] += 1
        rss = mapping.rss_bytes or 0
        anonymous = mapping.anonymous_bytes or 0
        huge = (mapping.private_hugetlb_bytes or 0) + (mapping.shared_hugetlb_bytes or 0)
        if mapping.path in _KERNEL_MADE:
            # Present in every process, but only newer kernels count it as resident.
            if mapping.path == "[vdso]":
                sums["kernel_bytes"] += mapping.size_bytes
        elif is_shared_object(mapping):
            objects.setdefault(SharedObject(mapping.dev, mapping.inode), mapping)
        elif huge:
            sums["hugetlb_bytes"] += huge
        elif mapping.shared:
            sums["file_shared_bytes"] += rss
        else:
            sums["swap_bytes"] += mapping.swap_bytes or 0
            if mapping.path == "[heap]":
                sums["heap_bytes"] += rss
            elif mapping.path == "[stack]":
                sums["stack_bytes"] += rss
            elif mapping.file_backed:
                sums["file_cow_bytes"] += anonymous
                sums["file_clean_bytes"] += rss - anonymous
            else:
                sums["anon_bytes"] += rss
    return attrs.evolve(Memory(**sums), measured_s=measured_s), objects
