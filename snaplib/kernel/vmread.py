"""Reading many pages of another process at once: process_vm_readv(2), and /proc/PID/mem.

The first is the fastest way there is, and reads only what the process itself may read. The second
also reads what it may not, such as memory that a program has made inaccessible for a while, as a
debugger would (FOLL_FORCE, see proc_mem_open of the kernel's fs/proc/base.c).
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING, Self

import numpy as np

from snaplib.kernel.syscalls import libc_function

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["MemoryReader"]

#: UIO_MAXIOV of linux/uio.h.
_MOST_VECTORS = 1024

_process_vm_readv = libc_function(
    "process_vm_readv",
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_ulong,
    restype=ctypes.c_ssize_t,
)


class MemoryReader:
    """Reads the memory of one process; `close` it, or use it as a context manager.

    Args:
        pid: The process.
        root: Where /proc is.

    Raises:
        OSError: There is no such process, or it is not ours to look at.
    """

    def __init__(self, pid: int, root: str | os.PathLike[str] = "/proc") -> None:
        self._pid = pid
        # Of the address space that there is now: after an exec it reads nothing any more.
        self._descriptor = os.open(f"{os.fspath(root)}/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it; may be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def read(
        self, room: memoryview, addresses: npt.NDArray[np.uint64], sizes: npt.NDArray[np.uint64]
    ) -> int:
        """Read ranges, one behind the other, as far as it goes.

        Args:
            room: Where to; as large as all of them.
            addresses: uint64, shape (n,): where each begins.
            sizes: uint64, shape (n,): how many bytes each has.

        Returns:
            How many bytes there are: fewer than asked for where the next one cannot be read.

        Raises:
            ProcessLookupError: The process is gone.
        """
        target = np.frombuffer(room, np.uint8).ctypes.data
        vectors = np.column_stack((addresses, sizes)).astype(np.uint64)
        offsets = np.cumsum(sizes) - sizes
        done = 0
        for first in range(0, len(vectors), _MOST_VECTORS):
            some = np.ascontiguousarray(vectors[first : first + _MOST_VECTORS])
            wanted = int(some[:, 1].sum())
            done = int(offsets[first])
            got = self._read_some(target + done, wanted, some)
            done += got
            if got < wanted:
                break
        return done

    def _read_some(self, target: int, wanted: int, vectors: npt.NDArray[np.uint64]) -> int:
        ours = np.array([target, wanted], np.uint64)
        try:
            return _process_vm_readv(
                self._pid, ours.ctypes.data, 1, vectors.ctypes.data, len(vectors), 0
            )
        except OSError as error:
            if error.errno == errno.EFAULT:
                return 0
            raise

    def read_anyway(self, room: memoryview, address: int) -> int:
        """Read a range whether the process may read it or not, as far as it goes.

        Args:
            room: Where to; as large as the range.
            address: Where it begins.

        Returns:
            How many bytes there are.
        """
        done = 0
        while done < len(room):
            try:
                got = os.preadv(self._descriptor, [room[done:]], address + done)
            except OSError as error:
                if error.errno not in (errno.EIO, errno.EFAULT, errno.ENOMEM):
                    raise
                got = 0
            if not got:
                break
            done += got
        return done
