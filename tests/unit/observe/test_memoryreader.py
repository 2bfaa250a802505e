"""Reading memory again and again, from a made-up /proc."""

from __future__ import annotations

import os

import pytest

from snaplib.observe import memoryreader
from snaplib.observe.memoryreader import MemoryReader
from snaplib.testing.procfs import FakeProc

PAGE = os.sysconf("SC_PAGE_SIZE")

SMAPS = """\
1000-9000 r-xp 00000000 08:01 7 /bin/x
Rss:                  32 kB
Anonymous:             4 kB
b000-f000 rw-p 00000000 00:00 0
Rss:                  16 kB
Anonymous:            16 kB
"""
MAPS = "".join(line + "\n" for line in SMAPS.splitlines() if "-" in line)


@pytest.fixture
def proc(tmp_path) -> FakeProc:
    proc = FakeProc(tmp_path)
    proc.add(23, maps=MAPS, smaps=SMAPS)
    sizes(proc, 23, resident=12, shared=7)
    return proc


def sizes(proc: FakeProc, pid: int, *, resident: int, shared: int) -> None:
    (proc.root / str(pid) / "statm").write_text(f"100 {resident} {shared} 1 0 1 0\n")


def test_between_two_walks_only_sums_are_read(proc, monkeypatch) -> None:
    clock = iter([100.0 + step / 10 for step in range(100)])
    monkeypatch.setattr(memoryreader.time, "monotonic", lambda: next(clock))
    seen = []
    reader = MemoryReader(proc.procfs, lambda pid, mappings: seen.append((pid, len(mappings))))
    first = reader.read([23])
    assert first.anon_bytes == 16 * 1024
    assert first.file_cow_bytes == 4 * 1024
    assert first.file_clean_bytes == 28 * 1024
    sizes(proc, 23, resident=12 + 5, shared=7 + 2)
    second = reader.read([23])
    assert second.anon_bytes == 16 * 1024 + 3 * PAGE
    assert second.file_clean_bytes == 28 * 1024 + 2 * PAGE
    assert second.measured_s == first.measured_s
    assert seen == [(23, 2)]


def test_page_tables_are_walked_rarely_while_the_sums_stay(proc, monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr(memoryreader.time, "monotonic", lambda: now[0])
    seen = []

    def walked(pid, _mappings) -> None:
        seen.append(pid)
        now[0] += 0.01  # what a walk takes

    reader = MemoryReader(proc.procfs, walked)
    for _ in range(20):
        reader.read([23])
        now[0] += 1.0
    assert len(seen) == 1
    sizes(proc, 23, resident=40, shared=7)
    for _ in range(20):
        reader.read([23])
        now[0] += 1.0
    assert len(seen) == 2
    now[0] += 30.0
    reader.read([23])
    assert len(seen) == 3


def test_who_ends_meanwhile_is_left_out(proc) -> None:
    assert MemoryReader(proc.procfs).read([23, 24]).anon_bytes == 16 * 1024


@pytest.mark.parametrize("name", ["statm", "stat", "maps", "smaps"])
def test_who_ends_between_two_of_its_files_is_left_out(proc, name) -> None:
    proc.add(24, maps=MAPS, smaps=SMAPS)
    sizes(proc, 24, resident=12, shared=7)
    (proc.root / "24" / name).unlink()
    assert MemoryReader(proc.procfs).read([23, 24]).anon_bytes == 16 * 1024


def test_a_member_of_another_user_shows_its_sums(proc, monkeypatch) -> None:
    def refuse(pid: int) -> None:
        raise PermissionError(13, "not yours")

    monkeypatch.setattr(proc.procfs, "smaps", refuse)
    memory = MemoryReader(proc.procfs).read([23])
    assert memory.anon_bytes == 5 * PAGE
    assert memory.resident_bytes == 12 * PAGE


def test_many_mappings_are_summed(proc, monkeypatch) -> None:
    monkeypatch.setattr(memoryreader, "_MANY_MAPPINGS", 1)
    (proc.root / "23/smaps_rollup").write_text(
        "1000-f000 ---p 00000000 00:00 0 [rollup]\nRss: 48 kB\nAnonymous: 20 kB\nSwap: 8 kB\n"
    )
    memory = MemoryReader(proc.procfs).read([23])
    assert (memory.anon_bytes, memory.file_clean_bytes, memory.swap_bytes) == (
        20 * 1024,
        28 * 1024,
        8 * 1024,
    )
