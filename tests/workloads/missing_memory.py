"""A process that misses its memory, as one has that is restored lazily, and does with it what it is told.

Usage: missing_memory.py SOCKET PAGES.  It connects to SOCKET and says there what CRIU's restore says of a process.
Each line of standard input is a JSON list, a command and its arguments; each is answered by a line of JSON.  The first
line of output is the address of the memory.  Pages are named by where they were at first.  Of each page its first and
last 64-bit words are told, as one number where they are the same.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import random
import socket
import struct
import sys
import threading

PAGE = 4096
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = _libc.mremap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.mremap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_void_p,
]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = _libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

READ, WRITE, PRIVATE_ANONYMOUS, MAYMOVE, FIXED, DONTNEED = 1, 2, 0x22, 1, 2, 4
#: FORK, REMAP, REMOVE, UNMAP of linux/userfaultfd.h.
FEATURES = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 6


def checked(result: int | None) -> int:
    if result in (-1, (1 << 64) - 1):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result or 0


def new_memory(pages: int, protection: int = READ | WRITE) -> int:
    return checked(_libc.mmap(None, pages * PAGE, protection, PRIVATE_ANONYMOUS, -1, 0))


class Memory:
    """The memory, and where its pages are now."""

    def __init__(self, path: str, pages: int) -> None:
        base = new_memory(pages)
        self.at = {page: base + page * PAGE for page in range(pages)}
        number = 323 if os.uname().machine == "x86_64" else 282
        uffd = checked(_libc.syscall(number, os.O_CLOEXEC | os.O_NONBLOCK))
        fcntl.ioctl(uffd, 0xC018AA3F, struct.pack("QQQ", 0xAA, FEATURES, 0))
        fcntl.ioctl(uffd, 0xC020AA00, struct.pack("QQQQ", base, pages * PAGE, 1, 0))
        self.restore = socket.socket(socket.AF_UNIX)
        self.restore.connect(path)
        self.restore.sendall(struct.pack("=i", os.getpid()))
        socket.send_fds(self.restore, [b"\0"], [uffd])
        os.close(uffd)
        print(base, flush=True)

    def finish(self) -> None:
        """Say that all is restored."""
        self.restore.sendall(struct.pack("=i", 0x52535446))
        self.restore.close()

    def word(self, page: int) -> int | list[int]:
        first = ctypes.c_uint64.from_address(self.at[page]).value
        last = ctypes.c_uint64.from_address(self.at[page] + PAGE - 8).value
        return first if first == last else [first, last]

    def read(self, first: int, count: int) -> list[int | list[int]]:
        return [self.word(page) for page in range(first, first + count)]

    def write(self, page: int, value: int) -> None:
        for offset in (0, PAGE - 8):
            ctypes.c_uint64.from_address(self.at[page] + offset).value = value

    def drop(self, first: int, count: int) -> None:
        checked(_libc.madvise(self.at[first], count * PAGE, DONTNEED))

    def unmap(self, first: int, count: int) -> None:
        checked(_libc.munmap(self.at[first], count * PAGE))
        for page in range(first, first + count):
            del self.at[page]

    def protect(self, first: int, count: int) -> None:
        """Make pages read-only, which makes a mapping of them."""
        checked(_libc.mprotect(self.at[first], count * PAGE, READ))

    def move(self, first: int, count: int) -> None:
        """Move pages elsewhere, and have other memory where they were."""
        here, to = self.at[first], new_memory(count, 0)
        checked(_libc.mremap(here, count * PAGE, count * PAGE, MAYMOVE | FIXED, to))
        checked(_libc.mmap(here, count * PAGE, READ | WRITE, PRIVATE_ANONYMOUS | 0x100000, -1, 0))
        for place, page in enumerate(range(first, first + count)):
            assert ctypes.c_uint64.from_address(here + place * PAGE).value == 0
            self.at[page] = to + place * PAGE

    def fork(self, first: int, count: int, drop: int = 0) -> list[int | list[int]]:
        """Tell what a child finds; it may drop the first pages, which is nothing to us."""
        ours, theirs = os.pipe()
        pid = os.fork()
        if not pid:
            if drop:
                self.drop(first, drop)
            with os.fdopen(theirs, "w") as answer:
                json.dump(self.read(first, count), answer)
            os._exit(0)
        os.close(theirs)
        with os.fdopen(ours) as answer:
            found = json.load(answer)
        os.waitpid(pid, 0)
        return found

    def run(self) -> int:
        """Run a program: a child that executes it at once."""
        pid = os.fork()
        if not pid:
            os.execv("/bin/true", ["true"])
        return os.waitpid(pid, 0)[1]

    def threads(self, count: int) -> list[list[int | list[int]]]:
        """Tell what threads find that go through all memory at once, each from another page on."""
        pages = sorted(self.at)
        found: list[dict[int, int | list[int]]] = [{} for _ in range(count)]

        def look(number: int) -> None:
            start = len(pages) * number // count
            for page in pages[start:] + pages[:start]:
                found[number][page] = self.word(page)

        working = [threading.Thread(target=look, args=(number,)) for number in range(count)]
        for one in working:
            one.start()
        for one in working:
            one.join()
        return [[one[page] for page in pages] for one in found]

    def storm(self, seed: int, rounds: int, values: list[int]) -> list[str]:
        """Change the upper half of the memory at random, with children and threads that look; tell what was wrong."""
        chance, bad = random.Random(seed), []
        half = len(values) // 2
        values = list(values)
        stop = threading.Event()

        def look() -> None:
            own = random.Random(seed + 1)
            while not stop.is_set():
                page = own.randrange(half)
                if (word := self.word(page)) != values[page]:
                    bad.append(f"a thread: page {page} is {word}")

        looking = [threading.Thread(target=look) for _ in range(2)]
        for one in looking:
            one.start()
        for _ in range(rounds):
            first = half + chance.randrange(half)
            count = min(chance.choice([1, 3, 40, 300]), len(values) - first)
            together = 1
            while (
                together < count and self.at[first + together] == self.at[first] + together * PAGE
            ):
                together += 1
            what = chance.choice(["drop", "move", "write", "child", "read"])
            if what == "drop":
                self.drop(first, together)
                values[first : first + together] = [0] * together
            elif what == "move":
                self.move(first, together)
            elif what == "write":
                value = chance.randrange(1 << 60)
                self.write(first, value)
                values[first] = value
            elif what == "child":
                if self.fork(first, count) != values[first : first + count]:
                    bad.append(f"a child: pages {first} to {first + count}")
            elif self.read(first, count) != values[first : first + count]:
                bad.append(f"pages {first} to {first + count}")
        stop.set()
        for one in looking:
            one.join()
        bad += [
            f"page {page} at last" for page, value in enumerate(values) if self.word(page) != value
        ]
        return bad[:10]


def main() -> None:
    """Do what is said."""
    memory = Memory(sys.argv[1], int(sys.argv[2]))
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(getattr(memory, name)(*arguments)), flush=True)


main()
