"""Which open file an epoll watches, asked with kcmp(2)."""

from __future__ import annotations

import ctypes
import errno

from snaplib.kernel.syscalls import syscall

__all__ = ["epoll_watches"]

_KCMP_EPOLL_TFD = 7  # linux/kcmp.h


class _Slot(ctypes.Structure):
    """struct kcmp_epoll_slot of linux/kcmp.h."""

    _fields_ = (
        ("epoll", ctypes.c_uint32),
        ("watched", ctypes.c_uint32),
        ("place", ctypes.c_uint32),
    )


def epoll_watches(pid: int, epoll: int, watched: int, place: int, descriptor: int) -> bool:
    """Return whether an epoll of a process watches the open file behind one of its descriptors.

    Args:
        pid: The process.
        epoll: Its epoll.
        watched: Number under which the file was added; it may be closed by now.
        place: How many others were added under that number before.
        descriptor: What it may be.

    Returns:
        True also where the kernel cannot tell (kcmp came with CONFIG_CHECKPOINT_RESTORE, later
        with CONFIG_KCMP).
    """
    slot = _Slot(epoll, watched, place)
    try:
        return syscall("kcmp", pid, pid, _KCMP_EPOLL_TFD, descriptor, ctypes.addressof(slot)) == 0
    except OSError as error:
        return error.errno in (errno.ENOSYS, errno.EPERM)
