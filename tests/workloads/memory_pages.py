"""Memory that checks itself: every page holds what its number and generation say.

Usage: memory_pages.py MIB ROUNDS.  Each round rewrites a third of the pages and then checks all of them; prints a
line a round.  Private, shared and file-backed memory take part.
"""

from __future__ import annotations

import mmap
import sys
import tempfile

import numpy as np

PAGE_WORDS = 512


def content(pages: np.ndarray, generation: np.ndarray) -> np.ndarray:
    """What pages hold: shape (n, 512), dtype uint64, every word different."""
    words = np.arange(PAGE_WORDS, dtype=np.uint64)
    seed = pages.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + generation.astype(np.uint64)
    return (seed[:, None] ^ words) * np.uint64(0xBF58476D1CE4E5B9)


class Region:
    """Some memory, and the generation each of its pages should be of."""

    def __init__(self, name: str, memory: mmap.mmap) -> None:
        self.name = name
        self.words = np.frombuffer(memory, np.uint64).reshape(-1, PAGE_WORDS)
        self.generation = np.zeros(len(self.words), np.int64)
        for block in self.blocks():
            self.words[block] = content(block, self.generation[block])

    def blocks(self) -> list[np.ndarray]:
        """Page numbers, a few MiB at a time."""
        pages = np.arange(len(self.words))
        return np.array_split(pages, max(1, len(pages) // 2048))

    def rewrite(self, generation: int) -> None:
        """Give a third of the pages a new generation."""
        for block in self.blocks():
            some = block[(block + generation) % 3 == 0]
            self.generation[some] = generation
            self.words[some] = content(some, self.generation[some])

    def bad_pages(self) -> int:
        """Count pages that are not as they should be."""
        bad = 0
        for block in self.blocks():
            bad += int(
                (self.words[block] != content(block, self.generation[block])).any(axis=1).sum()
            )
        return bad


def main() -> None:
    """Run it."""
    size, rounds = int(sys.argv[1]) << 20, int(sys.argv[2])
    small = size // 16
    unlinked = tempfile.TemporaryFile()  # noqa: SIM115 - open to the end
    unlinked.truncate(small)
    regions = [
        Region(
            "private", mmap.mmap(-1, size - 2 * small, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        ),
        Region("shared", mmap.mmap(-1, small, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)),
        Region("deleted file", mmap.mmap(unlinked.fileno(), small)),
    ]
    print("ready", flush=True)
    for number in range(1, rounds + 1):
        bad = 0
        for region in regions:
            region.rewrite(number)
        for region in regions:
            bad += region.bad_pages()
        print(
            f"round {number}: {sum(len(region.words) for region in regions)} pages, {bad} bad",
            flush=True,
        )
        if bad:
            sys.exit(1)


main()
