"""A small process that changes its memory in the ways that matter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Self

from snaplib.criu.pagemap import PAGE_BYTES
from snaplib.errors import ShimUnusable
from snaplib.kernel.pagemap import Category, Pagemap
from snaplib.task import Task

__all__ = ["DROPPED", "WRITTEN", "Child", "copy_memory"]

#: Pages that the child writes in `Child.armed`, and those that it drops in `Child.copied`.
WRITTEN = (5, 6, 7, 11, 30, 31, 47)
DROPPED = (3, 4)

_PROGRAM = Path(__file__).with_name("program.py")


class Child:
    """The running child, as a context manager: it ends with the block.

    Attributes:
        pid: Its pid.
        armed: Address of 64 pages of its own.
        copied: Address of 8 pages of a file that it has copies of.

    Raises:
        ShimUnusable: It has ended.
    """

    def __init__(self) -> None:
        pages = [",".join(map(str, numbers)) for numbers in (WRITTEN, DROPPED)]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", _PROGRAM, *pages],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        self.pid = self._process.pid
        try:
            self.armed, self.copied = self._addresses(2)
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def change(self) -> int:
        """Have it write, drop and map pages; return the address of 16 pages that nobody watches.

        Raises:
            ShimUnusable: It has ended.
        """
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        (new,) = self._addresses(1)
        return new

    def _addresses(self, count: int) -> list[int]:
        assert self._process.stdout is not None
        addresses = [int(word) for word in self._process.stdout.readline().split()]
        if len(addresses) != count:
            raise ShimUnusable("the child that was to be dumped has ended")
        return addresses

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


def copy_memory(task: Task) -> dict[int, bytes]:
    """Return a copy of the pages that CRIU may leave out: the process's own, and the vdso."""
    pages: dict[int, bytes] = {}
    with (
        Pagemap(f"/proc/{task.pid}/pagemap") as pagemap,
        Path(f"/proc/{task.pid}/mem").open("rb", buffering=0) as memory,
    ):
        for mapping in task.procfs.maps(task.pid):
            if mapping.path == "[vdso]":
                ranges = [(mapping.start, mapping.end)]
            elif mapping.path.startswith("[v"):
                continue
            else:
                found = pagemap.scan(
                    mapping.start,
                    mapping.end,
                    lacking=Category.FILE,
                    any_of=Category.PRESENT | Category.SWAPPED,
                )
                ranges = [(start, end) for start, end, _ in found.tolist()]
            for start, end in ranges:
                content = os.pread(memory.fileno(), end - start, start)
                for at in range(0, len(content), PAGE_BYTES):
                    pages[start + at] = content[at : at + PAGE_BYTES]
    return pages
