"""The system calls of the init that Python's ``os`` lacks: unshare, mount, tee, kcmp.

Only the standard library is imported: the init runs without snaplib's dependencies, and starts in
30 ms.
"""

from __future__ import annotations

import ctypes
import os
import platform

__all__ = [
    "CLONE_NEWNS",
    "CLONE_NEWPID",
    "make_mounts_slave",
    "mount_proc",
    "same_open_file",
    "tee",
    "unshare",
]

#: include/uapi/linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWPID = 0x20000000

#: include/uapi/linux/mount.h
_MS_NOSUID = 2
_MS_NODEV = 4
_MS_NOEXEC = 8
_MS_REC = 1 << 14
_MS_SLAVE = 1 << 19

#: include/uapi/linux/splice.h
_SPLICE_F_NONBLOCK = 2

#: include/uapi/linux/kcmp.h
_KCMP_FILE = 0
#: glibc has no wrapper: arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h
_SYS_KCMP = {"x86_64": 312}.get(platform.machine(), 272)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.unshare.argtypes = (ctypes.c_int,)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_libc.tee.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint)
_libc.tee.restype = ctypes.c_ssize_t
_libc.syscall.restype = ctypes.c_long


def _checked(result: int, call: str) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """Leave the namespaces named in `flags`; see unshare(2).

    Raises:
        OSError: The kernel refused; PermissionError without CAP_SYS_ADMIN.
    """
    _checked(_libc.unshare(flags), "unshare")


def make_mounts_slave() -> None:
    """Stop mounts made here from showing outside, while those made outside still show here."""
    _checked(_libc.mount(b"none", b"/", None, _MS_REC | _MS_SLAVE, None), "mount --make-rslave /")


def mount_proc() -> None:
    """Mount a /proc of the caller's PID namespace."""
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    _checked(_libc.mount(b"proc", b"/proc", b"proc", flags, None), "mount /proc")


def tee(source: int, sink: int, length_bytes: int) -> int:
    """Copy up to `length_bytes` from one pipe into another without taking them out; see tee(2).

    Returns:
        How many bytes; 0 when the source is empty or the sink full.
    """
    try:
        return _checked(_libc.tee(source, sink, length_bytes, _SPLICE_F_NONBLOCK), "tee")
    except BlockingIOError:
        return 0


def same_open_file(first: int, second: int) -> bool:
    """Whether two descriptors of this process are one open file description; see kcmp(2).

    Where the kernel has no kcmp, descriptors count as different.
    """
    pid = os.getpid()
    arguments = [ctypes.c_long(value) for value in (_SYS_KCMP, pid, pid, _KCMP_FILE, first, second)]
    return int(_libc.syscall(*arguments)) == 0
