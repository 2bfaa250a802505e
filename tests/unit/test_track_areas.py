"""Which mappings are watched, and as what."""

from __future__ import annotations

import pytest

from snaplib.kernel.maps import parse_maps
from snaplib.track import MemoryKind
from snaplib.track.areas import areas_of


def area_of(perms: str, rest: str):
    areas = areas_of(parse_maps(f"1000-3000 {perms} {rest}\n".encode()))
    return areas[0] if areas else None


@pytest.mark.parametrize(
    ("perms", "rest", "kind"),
    [
        ("rw-p", "00000000 00:00 0", MemoryKind.PRIVATE),
        ("rw-p", "00000000 00:00 0 [heap]", MemoryKind.PRIVATE),
        ("---p", "00000000 00:00 0 [anon:arena]", MemoryKind.PRIVATE),
        ("rw-p", "00001000 08:01 17 /usr/lib/x.so", MemoryKind.PRIVATE_FILE),
        ("r-xp", "00000000 08:01 17 /usr/lib/x.so", MemoryKind.PRIVATE_FILE),
        ("rw-p", "00000000 00:01 9 /memfd:x (deleted)", MemoryKind.PRIVATE_FILE),
        ("rw-s", "00000000 00:01 9 /memfd:x (deleted)", MemoryKind.SHARED),
        ("r--s", "00000000 00:01 9 /memfd:x (deleted)", MemoryKind.SHARED),
        ("rw-s", "00000000 00:01 9 /dev/zero (deleted)", MemoryKind.SHARED),
        ("rw-s", "00000000 00:01 9 /SYSV00000000 (deleted)", MemoryKind.SHARED),
        ("rw-s", "00000000 08:01 17 /data/base.db", MemoryKind.SHARED_FILE),
        ("rw-s", "00000000 08:01 17 /memfd:x", MemoryKind.SHARED_FILE),
    ],
)
def test_kinds(perms, rest, kind):
    assert area_of(perms, rest).kind is kind


@pytest.mark.parametrize(
    ("perms", "rest"),
    [
        ("r--s", "00000000 08:01 17 /usr/share/locale"),
        ("r-xp", "00000000 00:00 0 [vdso]"),
        ("r--p", "00000000 00:00 0 [vvar]"),
        ("r--p", "00000000 00:00 0 [vvar_vclock]"),
        ("--xp", "00000000 00:00 0 [vsyscall]"),
    ],
)
def test_what_holds_no_state_of_the_task_is_left_out(perms, rest):
    assert area_of(perms, rest) is None


def test_an_area_that_changed_in_any_way_is_another():
    line = "00000000 08:01 17 /data/x"
    assert area_of("rw-p", line) == area_of("rw-p", line)
    assert area_of("rw-p", line) != area_of("r--p", line)
    assert area_of("rw-p", line) != area_of("rw-p", line.replace("17", "18"))


def test_what_is_mapped_shared_for_reading_counts_as_part_of_a_mapping_for_writing():
    lines = [
        "1000-2000 r--s 00000000 08:01 17 /data/base.db",
        "2000-3000 rw-s 00001000 08:01 17 /data/base.db",
        "3000-4000 r--s 00002000 08:01 17 /data/base.db",
        "4000-5000 ---s 00003000 08:01 17 /data/base.db",
        "5000-6000 r--s 00000000 08:01 18 /data/other.db",
        "7000-8000 r--s 00000000 08:01 17 /data/base.db",
    ]
    areas = areas_of(parse_maps("".join(f"{line}\n" for line in lines).encode()))
    assert [area.start for area in areas] == [0x1000, 0x2000, 0x3000, 0x4000]


@pytest.mark.parametrize(
    ("one", "other", "joins"),
    [
        ("1000-2000 rw-p 0 00:00 0", "2000-3000 r--p 0 00:00 0", True),
        ("1000-2000 rw-p 0 00:00 0", "3000-4000 rw-p 0 00:00 0", False),
        ("1000-2000 rw-p 0 08:01 17 /x", "2000-3000 r--p 1000 08:01 17 /x", True),
        ("1000-2000 rw-p 0 08:01 17 /x", "2000-3000 r-xp 1000 08:01 17 /x", False),
        ("1000-2000 rw-p 0 08:01 17 /x", "2000-3000 rw-p 0 08:01 18 /y", False),
        ("1000-2000 rw-p 0 00:00 0", "2000-3000 rw-s 0 00:01 9 /dev/zero (deleted)", False),
    ],
)
def test_which_areas_may_be_one_mapping(one, other, joins):
    first, second = areas_of(parse_maps(f"{one}\n{other}\n".encode()))
    assert first.may_join(second) is joins
    assert second.may_join(first) is joins
