"""Reading and writing many pages of another process at once.

process_vm_readv(2) and process_vm_writev(2) are the fastest ways there are. They reach what the process itself may read
or write, and nowhere else; pages that are not there are made, when they are written, as if the process had touched
them. /proc/PID/mem also reads what the process may not, such as memory that a program has made inaccessible for a
while, as a debugger would (FOLL_FORCE, see proc_mem_open of the kernel's fs/proc/base.c).
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
from typing import TYPE_CHECKING

import numpy as np

from snaplib.kernel.held import HeldDescriptor
from snaplib.kernel.syscalls import libc_function

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["MemoryReader", "MemoryWriter"]

#: UIO_MAXIOV of linux/uio.h.
_MOST_VECTORS = 1024

#: pid, local vectors and how many, remote vectors and how many, flags.
_ARGTYPES = (
    *(ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong),
    ctypes.c_ulong,
)
_readv = libc_function("process_vm_readv", *_ARGTYPES, restype=ctypes.c_ssize_t)
_writev = libc_function("process_vm_writev", *_ARGTYPES, restype=ctypes.c_ssize_t)


def _vectors(
    addresses: npt.NDArray[np.uint64], sizes: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64]:
    """Return an array of struct iovec (sys/uio.h)."""
    return np.ascontiguousarray(np.column_stack((addresses, sizes)), np.uint64)


class MemoryReader(HeldDescriptor):
    """Reads the memory of one process.

    Args:
        pid: The process.
        root: Where /proc is.

    Raises:
        OSError: There is no such process, or it is not ours to look at.
    """

    def __init__(self, pid: int, root: str | os.PathLike[str] = "/proc") -> None:
        self._pid = pid
        # Of the address space that there is now: after an exec it reads nothing any more.
        super().__init__(os.open(f"{os.fspath(root)}/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC))

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
        offsets = np.cumsum(sizes) - sizes
        done = 0
        for first in range(0, len(sizes), _MOST_VECTORS):
            some = slice(first, first + _MOST_VECTORS)
            wanted = int(sizes[some].sum())
            done = int(offsets[first])
            got = self._read_some(target + done, wanted, _vectors(addresses[some], sizes[some]))
            done += got
            if got < wanted:
                break
        return done

    def _read_some(self, target: int, wanted: int, theirs: npt.NDArray[np.uint64]) -> int:
        ours = np.array([target, wanted], np.uint64)
        try:
            return _readv(self._pid, ours.ctypes.data, 1, theirs.ctypes.data, len(theirs), 0)
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


class MemoryWriter(HeldDescriptor):
    """Writes the memory of one process, from any thread.

    Args:
        pid: The process.

    Raises:
        ProcessLookupError: There is no such process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        super().__init__(os.pidfd_open(pid))

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
            ours = _vectors(begins[some], sizes[some])
            theirs = _vectors(addresses[some], sizes[some])
            self._check_alive()
            done = _writev(
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
        poller.register(self._descriptor, select.POLLIN)
        if poller.poll(0):
            raise ProcessLookupError(errno.ESRCH, f"process {self._pid} has ended")
