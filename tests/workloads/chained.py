"""Writes numbered lines, each with a checksum of all before it and of memory that is rewritten all the time.

Usage: chained.py FINISH.  Goes on until the file FINISH is there, and then writes ``end N``.  A line that is lost,
doubled or computed from memory that is not as it was breaks the chain.
"""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

MEMORY_BYTES = 8 << 20
PAGE = 4096


def main() -> None:
    """Do the work."""
    memory = bytearray(MEMORY_BYTES)
    chain = hashlib.blake2b(digest_size=8)
    number = 0
    while not Path(sys.argv[1]).exists():
        number += 1
        at = number * 7919 * PAGE % MEMORY_BYTES
        memory[at : at + 8] = number.to_bytes(8, "little")
        before = (at - 7919 * PAGE) % MEMORY_BYTES
        chain.update(memory[before : before + 8])
        print(f"line {number:09d} {chain.hexdigest()}", flush=True)
        time.sleep(0.002)
    print(f"end {number}", flush=True)


def check(text: str) -> int:
    """Return how many lines there are; AssertionError says where the chain breaks."""
    lines = text.splitlines()
    chain = hashlib.blake2b(digest_size=8)
    for number, line in enumerate(lines[:-1], 1):
        chain.update((number - 1).to_bytes(8, "little"))
        assert line == f"line {number:09d} {chain.hexdigest()}", f"line {number} is {line!r}"
    assert lines[-1] == f"end {len(lines) - 1}", f"the last line is {lines[-1]!r}"
    return len(lines) - 1


if __name__ == "__main__":
    main()
