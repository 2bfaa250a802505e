"""maps and smaps: round trips, paths of all kinds."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaplib.kernel.maps import Mapping, parse_maps, parse_smaps

ADDRESSES = st.integers(0, 2**47 // 4096 - 2).map(lambda page: page * 4096)
PERMS = st.tuples(*(st.sampled_from(pair) for pair in ("r-", "w-", "x-", "ps"))).map("".join)
#: A path as the kernel sees it: bytes without NUL, led by a slash.
PATHS = st.binary(max_size=40).filter(lambda path: b"\0" not in path and b"\\" not in path)
FLAGS = st.frozensets(st.sampled_from(["rd", "wr", "ex", "mr", "mw", "me", "ac", "lo", "uw"]))


@st.composite
def mappings(draw: st.DrawFn) -> Mapping:
    start = draw(ADDRESSES)
    named = draw(st.booleans())
    return Mapping(
        start=start,
        end=start + 4096 * draw(st.integers(1, 1000)),
        perms=draw(PERMS),
        offset=4096 * draw(st.integers(0, 2**40)) if named else 0,
        dev=os.makedev(draw(st.integers(0, 259)), draw(st.integers(0, 255))) if named else 0,
        inode=draw(st.integers(1, 2**63)) if named else 0,
        path=os.fsdecode(b"/" + draw(PATHS)) if named else draw(st.sampled_from(["", "[heap]"])),
        vm_flags=draw(FLAGS),
        rss_bytes=1024 * draw(st.integers(0, 2**40)),
        swap_bytes=1024 * draw(st.integers(0, 2**40)),
    )


def head(one: Mapping) -> bytes:
    """Print it as show_map_vma() in the kernel's fs/proc/task_mmu.c lays it out."""
    text = (
        f"{one.start:08x}-{one.end:08x} {one.perms} {one.offset:08x}"
        f" {os.major(one.dev):02x}:{os.minor(one.dev):02x} {one.inode} "
    ).encode()
    path = os.fsencode(one.path).replace(b"\n", b"\\012")
    return (text.ljust(73) + path if path else text) + b"\n"


def block(one: Mapping) -> bytes:
    assert one.vm_flags is not None
    assert one.rss_bytes is not None
    assert one.swap_bytes is not None
    body = (
        f"Size:           {one.size_bytes // 1024:8} kB\n"
        f"Rss:            {one.rss_bytes // 1024:8} kB\n"
        f"Swap:           {one.swap_bytes // 1024:8} kB\n"
        f"THPeligible:           0\n"
        f"VmFlags: {' '.join(sorted(one.vm_flags))} \n"
    )
    return head(one) + body.encode()


@given(st.lists(mappings(), max_size=5))
def test_smaps_round_trip(expected: list[Mapping]) -> None:
    assert parse_smaps(b"".join(map(block, expected))) == tuple(expected)


@given(st.lists(mappings(), max_size=5))
def test_maps_and_smaps_agree(expected: list[Mapping]) -> None:
    def outline(one: Mapping) -> tuple[object, ...]:
        return one.start, one.end, one.perms, one.offset, one.dev, one.inode, one.path

    found = parse_maps(b"".join(map(head, expected)))
    assert list(map(outline, found)) == list(map(outline, expected))
    assert all(one.vm_flags is None and one.rss_bytes is None for one in found)


def test_every_line_of_smaps_that_we_keep() -> None:
    content = b"""7f0000000000-7f0000200000 rw-s 00001000 00:05 77         /dev/shm/a b (deleted)
Size:               2048 kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
Rss:                 100 kB
Pss:                  50 kB
Pss_Dirty:            49 kB
Shared_Clean:          0 kB
Shared_Dirty:         60 kB
Private_Clean:         0 kB
Private_Dirty:        40 kB
Referenced:          100 kB
Anonymous:            12 kB
KSM:                   0 kB
LazyFree:              0 kB
AnonHugePages:      2048 kB
ShmemPmdMapped:        0 kB
FilePmdMapped:         0 kB
Shared_Hugetlb:        3 kB
Private_Hugetlb:       2 kB
Swap:                  8 kB
SwapPss:               8 kB
Locked:                4 kB
THPeligible:           0
VmFlags: rd wr sh mr mw me ms\x20
"""
    (one,) = parse_smaps(content)
    assert (one.start, one.size_bytes) == (0x7F0000000000, 2 << 20)
    assert one.path == "/dev/shm/a b (deleted)"
    assert one.deleted
    assert one.shared
    assert one.readable
    assert one.writable
    assert not one.executable
    assert one.file_backed
    assert one.vm_flags == {"rd", "wr", "sh", "mr", "mw", "me", "ms"}
    kib = 1024
    assert one.page_bytes == 4 * kib
    assert (one.rss_bytes, one.pss_bytes, one.anonymous_bytes) == (100 * kib, 50 * kib, 12 * kib)
    assert (one.shared_dirty_bytes, one.private_dirty_bytes) == (60 * kib, 40 * kib)
    assert (one.shared_hugetlb_bytes, one.private_hugetlb_bytes) == (3 * kib, 2 * kib)
    assert one.anonymous_huge_bytes == 2048 * kib
    assert (one.swap_bytes, one.locked_bytes) == (8 * kib, 4 * kib)


def test_nothing_mapped() -> None:
    assert parse_maps(b"") == ()
    assert parse_smaps(b"") == ()


def test_an_anonymous_name_that_says_deleted_is_not_deleted() -> None:
    (one,) = parse_maps(b"1000-2000 rw-p 00000000 00:00 0  [anon:x (deleted)]\n")
    assert not one.deleted


@pytest.mark.parametrize("content", [b"x", b"1000-2000 rw-p\n", b"zz-2000 rw-p 0 0:0 0\n"])
def test_what_are_no_maps_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a line of maps|invalid literal"):
        parse_maps(content)
