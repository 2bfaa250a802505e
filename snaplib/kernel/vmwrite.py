"""Writing many pages of another process at once: process_vm_writev(2).

It writes where the process itself may write, and nowhere else; pages that are not there are made as if the process had
touched them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
from typing import TYPE_CHECKING, Self

import numpy as np

from snaplib.kernel.syscalls import libc_function

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["MemoryWriter"]

#: UIO_MAXIOV of linux/uio.h.
_MOST_VECTORS = 1024

_process_vm_writev = libc_function(
    "process_vm_writev",
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_ulong,
    restype=ctypes.c_ssize_t,
)


class MemoryWriter:
    """Writes the memory of one process, from any thread; `close` it, or use it as a context manager.

    Args:
        pid: The process.

    Raises:
        ProcessLookupError: There is no such process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._pidfd = os.pidfd_open(pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it; may be called again."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def write(
        self,
        source: memoryview,
        offsets: npt.NDArray[np.uint64],
        addresses: npt.NDArray[np.uint64],
        sizes: npt.NDArray[np.uint64],
    ) -> None:
        """Write pieces of a buffer.

        Args:
            source: The buffer.
            offsets: uint64, shape (n,): where in it each piece begins.
            addresses: uint64, shape (n,): where in the process it goes.
            sizes: uint64, shape (n,): how many bytes it has.

        Raises:
            ProcessLookupError: The process has ended.
            OSError: EFAULT where it may not write itself; others where we may not.
        """
        bytes_there = np.frombuffer(source, np.uint8)
        begins = np.uint64(bytes_there.ctypes.data) + offsets
        for first in range(0, len(sizes), _MOST_VECTORS):
            some = slice(first, first + _MOST_VECTORS)
            ours = np.ascontiguousarray(np.column_stack((begins[some], sizes[some])))
            theirs = np.ascontiguousarray(np.column_stack((addresses[some], sizes[some])))
            self._check_alive()
            done = _process_vm_writev(
                self._pid, ours.ctypes.data, len(ours), theirs.ctypes.data, len(theirs), 0
            )
            if done != int(sizes[some].sum()):
                where = addresses[some][int(np.searchsorted(np.cumsum(sizes[some]), done, "right"))]
                raise OSError(
                    errno.EFAULT, f"process {self._pid} cannot be written to at {int(where):#x}"
                )

    def _check_alive(self) -> None:
        # Its number may be another's once it has ended; that takes longer than from here to the call.
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        if poller.poll(0):
            raise ProcessLookupError(errno.ESRCH, f"process {self._pid} has ended")
