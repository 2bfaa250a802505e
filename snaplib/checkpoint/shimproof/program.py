"""The child of the proof, a script: it prints where its memory is, changes it when it is told to, and waits.

Arguments: numbers of the pages that it writes in its own memory, and of those that it drops in memory of a file, with
commas between them.  What changes is printed as an address each, on a line a step.
"""

from __future__ import annotations

import ctypes
import mmap
import sys


def _mapped(*arguments: int, **options: int) -> tuple[mmap.mmap, int]:
    memory = mmap.mmap(*arguments, **options)
    return memory, ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _tell(*addresses: int) -> None:
    sys.stdout.write(" ".join(map(str, addresses)) + "\n")
    sys.stdout.flush()


def _main() -> None:
    written, dropped = (tuple(map(int, word.split(","))) for word in sys.argv[1:])
    page = mmap.PAGESIZE
    own = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    armed, armed_address = _mapped(-1, 64 * page, flags=own)
    with open(sys.executable, "rb") as file:  # noqa: PTH123 - starts without pathlib
        copied, copied_address = _mapped(
            file.fileno(),
            8 * page,
            flags=mmap.MAP_PRIVATE,
            prot=mmap.PROT_READ | mmap.PROT_WRITE,
        )
    for number in range(64):
        armed[number * page] = 1
    for number in range(8):
        copied[number * page] = 1 + copied[number * page] % 255
    _tell(armed_address, copied_address)
    sys.stdin.readline()
    for number in written:
        armed[number * page + 9] = 2
    for number in dropped:
        copied.madvise(mmap.MADV_DONTNEED, number * page, page)
    new, new_address = _mapped(-1, 16 * page, flags=own)
    for number in range(16):
        new[number * page] = 3
    _tell(new_address)
    sys.stdin.readline()


if __name__ == "__main__":
    _main()
