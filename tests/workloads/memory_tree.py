"""A tree of processes whose memory checks itself for as long as it is changed.

Usage: memory_tree.py READY FINISH MIB CHILDREN [REST].  READY is made once all memory is there; when FINISH exists
everything is checked once more, and the exit status tells whether all pages are as they should be.  Pages are
rewritten, mappings come, go, grow and move, memory is dropped, made inaccessible and given back, and children end and
are replaced.
After each change a process rests for 3 ms, or for REST times what the change took if that is more: where machines are
slow, the tree would leave nobody else any CPU.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

PAGE_WORDS = 512
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS

libc = ctypes.CDLL(None, use_errno=True)


def content(pages: np.ndarray, generation: np.ndarray) -> np.ndarray:
    """What pages hold: shape (n, 512), dtype uint64, every word different; generation 0 is untouched memory."""
    words = np.arange(PAGE_WORDS, dtype=np.uint64)
    seed = pages.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + generation.astype(np.uint64)
    full = (seed[:, None] ^ words) * np.uint64(0xBF58476D1CE4E5B9)
    full[generation == 0] = 0
    return full


class Region:
    """Some memory, and the generation each of its pages should be of."""

    def __init__(self, memory: mmap.mmap) -> None:
        self.memory = memory
        self.view()
        self.generation = np.zeros(len(self.words), np.int64)

    def view(self) -> None:
        """Look at the memory anew."""
        self.words = np.frombuffer(self.memory, np.uint64).reshape(-1, PAGE_WORDS)

    def write(self, pages: np.ndarray, generation: int) -> None:
        """Give pages a new generation."""
        self.generation[pages] = generation
        self.words[pages] = content(pages, self.generation[pages])

    def bad_pages(self) -> int:
        """Count pages that are not as they should be."""
        pages = np.arange(len(self.words))
        return int((self.words != content(pages, self.generation)).any(axis=1).sum())

    def protect(self, *, accessible: bool) -> None:
        """Make all of it inaccessible, or accessible."""
        rights = mmap.PROT_READ | mmap.PROT_WRITE if accessible else 0
        address = ctypes.c_void_p(self.words.ctypes.data)
        if libc.mprotect(address, ctypes.c_size_t(self.words.nbytes), rights):
            raise OSError(ctypes.get_errno(), "mprotect")


def step(regions: list[Region], number: int, chance: random.Random) -> None:
    """Change something."""
    region = chance.choice(regions)
    count = len(region.words)
    some = np.array(sorted(chance.sample(range(count), max(1, count // 50))))
    region.write(some, number)
    what = chance.randrange(8)
    if what == 0:
        # Dropped, and zeros again.
        first = chance.randrange(count)
        after = min(count, first + 9)
        if region is not regions[1]:
            region.memory.madvise(mmap.MADV_DONTNEED, first * 4096, (after - first) * 4096)
            region.generation[first:after] = 0
    elif what == 1:
        regions.append(Region(mmap.mmap(-1, 64 * 4096, flags=PRIVATE)))
        regions[-1].write(np.arange(0, 64, 3), number)
    elif what == 2 and len(regions) > 5:
        regions.pop(chance.randrange(4, len(regions)))
    elif what == 3 and len(regions[2].words) < 4096:
        # Grows, or moves.
        grown = regions[2]
        del grown.words
        grown.memory.resize(len(grown.memory) + 16 * 4096)
        grown.view()
        grown.generation = np.concatenate((grown.generation, np.zeros(16, np.int64)))


def live(finish: Path, size: int, seed: int, ready_fd: int, rest: float) -> int:
    """Change memory and check it until it is time to finish; return how many pages are bad."""
    chance = random.Random(seed)
    with tempfile.TemporaryFile() as file:
        file.truncate(64 * 4096)
        copied = mmap.mmap(file.fileno(), 64 * 4096, flags=mmap.MAP_PRIVATE)
    hidden = Region(mmap.mmap(-1, 32 * 4096, flags=PRIVATE))
    hidden.write(np.arange(32), 1)
    regions = [
        Region(mmap.mmap(-1, size, flags=PRIVATE)),
        Region(mmap.mmap(-1, size // 8, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)),
        Region(mmap.mmap(-1, size // 8, flags=PRIVATE)),
        Region(copied),
    ]
    for region in regions:
        region.write(np.arange(0, len(region.words), 2), 1)
    hidden.protect(accessible=False)
    if ready_fd >= 0:
        os.write(ready_fd, b"r")
        os.close(ready_fd)
    number = 1
    bad = 0
    while not bad and not finish.exists():
        number += 1
        began_s = time.monotonic()
        step(regions, number, chance)
        if number % 23 == 0:
            bad = sum(region.bad_pages() for region in regions)
            hidden.protect(accessible=True)
            bad += hidden.bad_pages()
            hidden.write(np.array([number % 32]), number)
            hidden.protect(accessible=False)
            # A child that ends at once, and one that writes to its copies.
            pid = os.fork()
            if pid == 0:
                regions[0].write(np.arange(5), number)
                os._exit(0)
            os.waitpid(pid, 0)
        time.sleep(max(0.003, rest * (time.monotonic() - began_s)))
    hidden.protect(accessible=True)
    return bad + hidden.bad_pages() + sum(region.bad_pages() for region in regions)


def main() -> None:
    """Run it."""
    ready, finish = Path(sys.argv[1]), Path(sys.argv[2])
    size, children = int(sys.argv[3]) << 20, int(sys.argv[4])
    rest = float(sys.argv[5]) if sys.argv[5:] else 0.0
    reading, writing = os.pipe()
    pids = []
    for number in range(children):
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            os._exit(min(100, live(finish, size, number, writing, rest)))
        pids.append(pid)
    os.close(writing)
    for _ in pids:
        os.read(reading, 1)
    os.close(reading)
    ready.touch()
    bad = live(finish, size, 23, -1, rest)
    for pid in pids:
        bad += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    sys.exit(min(100, bad))


def tell(*failure: Any) -> None:
    """Tell what went wrong where it can be found: standard error leads nowhere after a restore."""
    Path(sys.argv[1] + "-failure").write_text("".join(traceback.format_exception(*failure)))


sys.excepthook = tell
main()
