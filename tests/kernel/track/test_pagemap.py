"""What the classic file tells, compared with what the ioctl tells of the same pages."""

from __future__ import annotations

import numpy as np
import pytest

from snaplib.kernel.pagemap import Category, Pagemap
from snaplib.track import PAGE_BYTES

THERE = Category.PRESENT | Category.SWAPPED

pytestmark = pytest.mark.require("write_protect")


def pages(regions) -> list[int]:
    return [page for start, end, _ in regions.tolist() for page in range(start, end, PAGE_BYTES)]


@pytest.mark.parametrize("lacking", [0, Category.FILE])
def test_both_ways_find_the_same_pages(victim, lacking):
    ranges = []
    for kind in ("anon", "memfd", "file-private", "globals"):
        address = victim("map", kind, 64)
        for page in (3, 4, 5, 11, 47):
            victim("store", address, page, 1)
        victim("load", address, 20, 3)
        ranges.append((address, address + 64 * PAGE_BYTES))
    with Pagemap(f"/proc/{victim.pid}/pagemap") as pagemap:
        for start, end in ranges:
            told = pagemap.scan(start, end, any_of=THERE, lacking=lacking)
            asked = {"having": 0, "lacking": int(lacking), "any_of": int(THERE), "report": 0}
            read = pagemap._read(start, end, **asked)
            assert pages(read) == pages(told)
            assert pages(told) or lacking


def test_what_is_reported_divides_regions(victim):
    address = victim("map", "file-private", 64)
    victim("load", address, 0, 64)
    victim("store", address, 10, 7)
    with Pagemap(f"/proc/{victim.pid}/pagemap") as pagemap:
        regions = pagemap._read(
            address,
            address + 64 * PAGE_BYTES,
            having=0,
            lacking=0,
            any_of=int(THERE),
            report=int(Category.FILE),
        )
    sizes = ((regions[:, 1] - regions[:, 0]) // np.uint64(PAGE_BYTES)).tolist()
    assert sizes == [10, 7, 47]
    assert regions[:, 2].tolist() == [Category.FILE, 0, Category.FILE]
