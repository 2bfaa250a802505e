"""A large memory that checks itself, a counter, and an output of which every line depends on the one before.

Usage: large.py MIB FINISH [LINES_PER_S].  Half of each 64 KiB is random and half is text.  Every line comes after a
page was changed.  Once the file FINISH is there all memory is compared with what it should be; the last line says so.
"""

from __future__ import annotations

import hashlib
import mmap
import sys
import time
from pathlib import Path

import numpy as np

PAGE_BYTES = 4096
BLOCK_PAGES = 2048
TEXT = b"chr1\t%09d\t60\t100M\t=\tACGTTGCAACGT\tIIIIIIIIIIII\n"


def block(number: int) -> np.ndarray:
    """Return what a block holds before it is changed: shape (BLOCK_PAGES, 512), dtype uint64."""
    pages = np.empty((BLOCK_PAGES // 16, 2, 8 * 512), np.uint64)
    random = np.random.SFC64(number).random_raw(BLOCK_PAGES // 16 * 8 * 512)
    pages[:, 0] = random.reshape(-1, 8 * 512)
    line = TEXT % number
    pages[:, 1] = np.frombuffer((line * (PAGE_BYTES * 8 // len(line) + 1))[: PAGE_BYTES * 8], "u8")
    return pages.reshape(BLOCK_PAGES, 512)


def main() -> None:
    """Run it."""
    size, finish = int(sys.argv[1]) << 20, Path(sys.argv[2])
    pause_s = 1 / float(sys.argv[3]) if len(sys.argv) > 3 else 0.01
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    words = np.frombuffer(memory, np.uint64).reshape(-1, 512)
    stamps = np.zeros(len(words), np.uint64)
    blocks = range(len(words) // BLOCK_PAGES)
    for number in blocks:
        words[number * BLOCK_PAGES : (number + 1) * BLOCK_PAGES] = block(number)
    number, chain = 0, ""
    while not finish.exists():
        number += 1
        page = number * 7919 % len(words)
        words[page, number % 512] = stamps[page] = number
        chain = hashlib.sha256(f"{chain}{number}".encode()).hexdigest()[:16]
        print(number, chain, flush=True)
        time.sleep(pause_s)
    changed = bad = 0
    for one in blocks:
        pages = slice(one * BLOCK_PAGES, (one + 1) * BLOCK_PAGES)
        wanted, stamp = block(one), stamps[pages]
        (touched,) = stamp.nonzero()
        # A page may have been changed more than once; its newest change is known.
        wanted[touched, stamp[touched] % 512] = stamp[touched]
        differs = (words[pages] != wanted).sum(axis=1)
        bad += int((differs > stamp // len(words)).sum())
        changed += len(touched)
    print("end", number, chain, f"{bad} bad pages of {len(words)}", flush=True)
    sys.exit(bool(bad))


def check(text: str, mib: int) -> int:
    """Return how many lines an output has; fails if it is not the output of one run whose memory was right."""
    *lines, last = text.splitlines()
    chain = ""
    for number, line in enumerate(lines, 1):
        chain = hashlib.sha256(f"{chain}{number}".encode()).hexdigest()[:16]
        assert line == f"{number} {chain}", f"line {number} is {line!r}"
    assert last == f"end {len(lines)} {chain} 0 bad pages of {mib << 8}", last
    return len(lines)


if __name__ == "__main__":
    main()
