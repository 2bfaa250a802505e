"""Memory by kind, from the text of smaps."""

from __future__ import annotations

from snaplib.kernel.maps import parse_smaps
from snaplib.observe import Memory
from snaplib.observe.memory import SharedObject, memory_of


def smaps(*mappings: tuple[str, dict[str, int]]) -> bytes:
    lines = []
    for head, values in mappings:
        lines.append(head)
        lines += [f"{key}: {kilobytes} kB" for key, kilobytes in values.items()]
    return "\n".join(lines).encode()


CONTENT = smaps(
    ("1000-9000 r-xp 00000000 08:01 7 /bin/x", {"Rss": 32, "Anonymous": 4}),
    ("a000-b000 rw-p 00000000 00:00 0 [heap]", {"Rss": 4, "Anonymous": 4, "Swap": 8}),
    ("b000-f000 rw-p 00000000 00:00 0", {"Rss": 16, "Anonymous": 16}),
    ("10000-20000 rw-s 00000000 00:01 23 /memfd:x (deleted)", {"Rss": 64, "Anonymous": 0}),
    ("20000-30000 rw-s 00000000 00:01 23 /memfd:x (deleted)", {"Rss": 64, "Anonymous": 0}),
    ("30000-40000 rw-s 00000000 08:01 9 /data", {"Rss": 12, "Anonymous": 0}),
    ("50000-60000 rw-p 00000000 00:0f 9 /anon_hugepage (deleted)", {"Private_Hugetlb": 2048}),
    ("60000-61000 r--p 00000000 00:00 0 [vvar]", {"Rss": 4}),
    ("61000-63000 r-xp 00000000 00:00 0 [vdso]", {"Rss": 8}),
    ("70000-71000 rw-p 00000000 00:00 0 [stack]", {"Rss": 4, "Anonymous": 4}),
)


def test_memory_by_kind() -> None:
    memory, objects = memory_of(parse_smaps(CONTENT), 5.0)
    kib = 1024
    assert memory == Memory(
        anon_bytes=16 * kib,
        heap_bytes=4 * kib,
        stack_bytes=4 * kib,
        file_cow_bytes=4 * kib,
        file_clean_bytes=28 * kib,
        file_shared_bytes=12 * kib,
        hugetlb_bytes=2048 * kib,
        swap_bytes=8 * kib,
        kernel_bytes=8 * kib,
        mappings=10,
        measured_s=5.0,
    )
    assert list(objects) == [SharedObject(1, 23)], "an object counts once, by what it holds"
    assert memory.dumpable_bytes == (16 + 4 + 4 + 4 + 2048 + 8 + 8) * kib
    assert memory.resident_bytes == memory.dumpable_bytes + (28 + 12 - 8) * kib


def test_growth_between_two_walks() -> None:
    memory = Memory(anon_bytes=100, heap_bytes=50, file_clean_bytes=10)
    assert memory.grown(20, 5) == Memory(anon_bytes=120, heap_bytes=50, file_clean_bytes=15)
    assert memory.grown(-120, -50) == Memory(heap_bytes=30), "never below nothing"
