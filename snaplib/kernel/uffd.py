"""userfaultfd(2) of other processes, used for asynchronous write protection.

A write-protected page is made writable again by the kernel at the first write, without waking
anyone; which pages that happened to, PAGEMAP_SCAN tells (`snaplib.kernel.pagemap`). Structures and
numbers are those of linux/userfaultfd.h; UFFD_FEATURE_WP_ASYNC is Linux commit d61ea1cb0095 (in
v6.7).
"""

from __future__ import annotations

import errno
import fcntl
import functools
import json
import mmap
import os
import select
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from snaplib.kernel.held import HeldDescriptor
from snaplib.kernel.pagemap import Category, Pagemap
from snaplib.kernel.syscalls import syscall

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Taken", "Userfaultfd", "take_userfaultfds", "write_protection_missing"]

_UFFDIO_API = 0xC018AA3F
_UFFDIO_REGISTER = 0xC020AA00
_UFFDIO_UNREGISTER = 0x8010AA01
_UFFDIO_WRITEPROTECT = 0xC018AA06

_UFFD_API = 0xAA
_FEATURE_WP_HUGETLBFS_SHMEM = 1 << 12
_FEATURE_WP_UNPOPULATED = 1 << 13
_FEATURE_WP_ASYNC = 1 << 15
_USER_MODE_ONLY = 1
_REGISTER_MODE_WP = 1 << 1
_WRITEPROTECT_MODE_WP = 1 << 0

#: The helper process starts in some 50 ms; each process takes 0.3 ms, or a second if it hangs.
_START_DEADLINE_S = 10.0
_EACH_DEADLINE_S = 2.0


class Userfaultfd(HeldDescriptor):
    """Write protection of one address space: closing it undoes all protection, and the process runs on.

    Args:
        descriptor: Of a userfaultfd; this object closes it.

    Raises:
        OSError: The kernel has no asynchronous write protection (EINVAL). The descriptor is closed.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        features = _FEATURE_WP_ASYNC | _FEATURE_WP_UNPOPULATED | _FEATURE_WP_HUGETLBFS_SHMEM
        try:
            # Acts on the address space the descriptor came from, whoever calls.
            self._ioctl("UFFDIO_API", _UFFDIO_API, struct.pack("QQQ", _UFFD_API, features, 0))
        except OSError:
            self.close()
            raise

    def register(self, start: int, end: int) -> None:
        """Let the pages of a range be protected; mappings that are registered stay as they are.

        The process must stand still: it can split a mapping that is just being moved.

        Raises:
            OSError: EINVAL or EPERM: the mapping cannot be tracked; EBUSY: another userfaultfd has
                it; ENOMEM: the address space is gone.
        """
        self._ioctl(
            "UFFDIO_REGISTER",
            _UFFDIO_REGISTER,
            struct.pack("QQQQ", start, end - start, _REGISTER_MODE_WP, 0),
        )

    def unregister(self, start: int, end: int) -> None:
        """Forget a range; its pages are as they were before."""
        self._ioctl("UFFDIO_UNREGISTER", _UFFDIO_UNREGISTER, struct.pack("QQ", start, end - start))

    def unprotect(self, start: int, end: int) -> None:
        """Make all pages of a registered range writable; they count as written then."""
        self._ioctl(
            "UFFDIO_WRITEPROTECT", _UFFDIO_WRITEPROTECT, struct.pack("QQQ", start, end - start, 0)
        )

    def protect(self, start: int, end: int) -> None:
        """Protect all pages of a registered range, those not populated too."""
        self._ioctl(
            "UFFDIO_WRITEPROTECT",
            _UFFDIO_WRITEPROTECT,
            struct.pack("QQQ", start, end - start, _WRITEPROTECT_MODE_WP),
        )

    def _ioctl(self, name: str, request: int, argument: bytes) -> None:
        try:
            fcntl.ioctl(self._descriptor, request, bytearray(argument))
        except OSError as error:
            raise OSError(error.errno, f"{name}: {error.strerror}") from None


@attrs.frozen
class Taken:
    """What came of taking a userfaultfd out of a process.

    Attributes:
        pid: The process.
        userfaultfd: It, or None if it could not be taken.
        errno: Why not, as a number of errno(3); 0 if it was.
        detail: The same in words.
        stopped_s: For how long one thread of the process stood still.
    """

    pid: int
    userfaultfd: Userfaultfd | None
    errno: int = 0
    detail: str = ""
    stopped_s: float = 0.0


@functools.cache
def write_protection_missing() -> str:
    """Return why this kernel has no asynchronous write protection, by trying it on ourselves; empty if it has."""
    try:
        descriptor = syscall("userfaultfd", os.O_CLOEXEC | os.O_NONBLOCK | _USER_MODE_ONLY)
    except OSError as error:
        return f"userfaultfd: {error.strerror}"
    try:
        with Userfaultfd(descriptor), Pagemap("/proc/self/pagemap") as pagemap:
            pagemap.scan(0, mmap.PAGESIZE, having=Category.WRITTEN)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTTY):
            return str(error)
        return "this kernel has no PAGEMAP_SCAN, or no asynchronous write protection (Linux 6.7)"
    return ""


def take_userfaultfds(pids: Iterable[int]) -> tuple[Taken, ...]:
    """Take a userfaultfd out of each of some running processes: see `snaplib.kernel.injection`.

    They must not be frozen by a cgroup. What fails for one process does not touch the others.

    Returns:
        One record a pid, in their order.
    """
    wanted = tuple(pids)
    if not wanted:
        return ()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            script = Path(__file__).with_name("injection") / "__main__.py"
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(script), str(theirs.fileno()), *map(str, wanted)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # What is sent to our process group is not meant for it.
                start_new_session=True,
                cwd="/",
            )
        try:
            answers = _receive(ours, len(wanted))
        finally:
            # Never killed: that is what could harm the processes it works on. It ends by itself.
            ours.close()
            process.wait()
    gone = Taken(0, None, errno.EIO, "the helper process that stops it ended or hung")
    return tuple(answers.get(pid, attrs.evolve(gone, pid=pid)) for pid in wanted)


def _receive(channel: socket.socket, count: int) -> dict[int, Taken]:
    answers: dict[int, Taken] = {}
    deadline = time.monotonic() + _START_DEADLINE_S + _EACH_DEADLINE_S * count
    while len(answers) < count:
        ready, _, _ = select.select([channel], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            break
        message, descriptors, _, _ = socket.recv_fds(channel, 65536, 1)
        if not message:
            break
        answer = json.loads(message)
        answers[answer["pid"]] = _taken(answer, descriptors)
    return answers


def _taken(answer: dict[str, int], descriptors: list[int]) -> Taken:
    taken = Taken(userfaultfd=None, **answer)  # type: ignore[arg-type] # what `injection` sends
    if not descriptors:
        return taken
    os.set_inheritable(descriptors[0], False)
    try:
        return attrs.evolve(taken, userfaultfd=Userfaultfd(descriptors[0]))
    except OSError as error:
        return attrs.evolve(taken, errno=error.errno or errno.EIO, detail=str(error.strerror))
