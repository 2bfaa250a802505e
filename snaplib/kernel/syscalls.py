"""System calls that the standard library of Python 3.11 does not have.

Each is declared here once, with its argument types beside it, and checked by one function: a call
that fails raises ``OSError`` with the kernel's errno and the call's name. Numbers and constants are
those of the kernel's uapi headers, named with each.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "CLONE_NEWIPC",
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWPID",
    "CLONE_NEWUSER",
    "CLONE_NEWUTS",
    "KCMP_FILE",
    "KCMP_FILES",
    "KCMP_VM",
    "MS_PRIVATE",
    "MS_REC",
    "MS_SLAVE",
    "kcmp",
    "libc_function",
    "mount",
    "pidfd_getfd",
    "prctl",
    "process_vm_read",
    "set_child_subreaper",
    "setns",
    "syscall",
    "unshare",
]

# linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# linux/mount.h
MS_REC = 1 << 14
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19

# linux/kcmp.h
KCMP_FILE = 0
KCMP_VM = 1
KCMP_FILES = 2

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h

#: Name -> number on x86-64 (asm/unistd_64.h) and elsewhere (asm-generic/unistd.h). From 424 on all
#: architectures number alike.
_NUMBERS = {
    "bpf": (321, 280),
    "clone3": (435, 435),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "userfaultfd": (323, 282),
}
_NUMBER_COLUMN = 0 if platform.machine() in ("x86_64", "AMD64") else 1

_libc = ctypes.CDLL(None, use_errno=True)


def libc_function(name: str, *argtypes: Any, restype: Any = ctypes.c_int) -> Callable[..., int]:
    """Return a function of the C library that raises ``OSError`` when it returns -1.

    Raises:
        AttributeError: This C library does not have it.
    """
    function = _libc[name]
    function.argtypes = list(argtypes)
    function.restype = restype

    def call(*arguments: Any) -> int:
        return _checked(name, function(*arguments))

    return call


def syscall(name: str, *arguments: int | bytes | ctypes.Array[Any] | None) -> int:
    """Make a system call that the C library may have no function for.

    Args:
        name: One that `_NUMBERS` knows.
        arguments: Numbers as 64 bits, or pointers.

    Raises:
        OSError: It failed; ENOSYS also where the kernel does not know it.
    """
    number = ctypes.c_long(_NUMBERS[name][_NUMBER_COLUMN])
    wide = [ctypes.c_uint64(one) if isinstance(one, int) else one for one in arguments]
    return _checked(name, _syscall(number, *wide))


def _checked(name: str, result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

_unshare = libc_function("unshare", ctypes.c_int)
_setns = libc_function("setns", ctypes.c_int, ctypes.c_int)
_mount = libc_function(
    "mount",
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_prctl = libc_function(
    "prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong
)


class _IoVec(ctypes.Structure):
    """struct iovec of uio.h."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


_process_vm_readv = libc_function(
    "process_vm_readv",
    ctypes.c_int,
    ctypes.POINTER(_IoVec),
    ctypes.c_ulong,
    ctypes.POINTER(_IoVec),
    ctypes.c_ulong,
    ctypes.c_ulong,
    restype=ctypes.c_ssize_t,
)


def unshare(flags: int) -> None:
    """Leave the shared namespaces named by CLONE_NEW* flags (unshare(2))."""
    _unshare(flags)


def setns(descriptor: int, kinds: int = 0) -> None:
    """Enter a namespace by its descriptor, or those of a process by its pidfd (setns(2))."""
    _setns(descriptor, kinds)


def mount(
    source: str | None, target: str, kind: str | None, flags: int = 0, data: str | None = None
) -> None:
    """Mount a file system or change a mount (mount(2))."""
    _mount(_bytes(source), _bytes(target), _bytes(kind), flags, _bytes(data))


def prctl(option: int, *arguments: int) -> int:
    """Read or set an attribute of this thread or process (prctl(2)); at most four arguments."""
    padded = (*arguments, 0, 0, 0, 0)[:4]
    return _prctl(option, *padded)


def set_child_subreaper(enabled: bool) -> None:
    """Make this process the parent of its orphaned descendants, or stop being it."""
    prctl(_PR_SET_CHILD_SUBREAPER, int(enabled))


def pidfd_getfd(pidfd: int, descriptor: int) -> int:
    """Return our own copy of a descriptor of another process (pidfd_getfd(2)); close-on-exec.

    Linux commit 8649c322f75c (in v5.6).
    """
    return syscall("pidfd_getfd", pidfd, descriptor, 0)


def kcmp(
    pid: int, other_pid: int, kind: int, descriptor: int = 0, other_descriptor: int = 0
) -> bool:
    """Return whether two processes share a kernel object (kcmp(2)).

    Args:
        pid: One process.
        other_pid: The other, perhaps the same.
        kind: ``KCMP_FILE`` compares the open files behind two descriptors, ``KCMP_VM`` the address
            spaces, ``KCMP_FILES`` the descriptor tables.
        descriptor: Of the one, for ``KCMP_FILE``.
        other_descriptor: Of the other, for ``KCMP_FILE``.
    """
    return syscall("kcmp", pid, other_pid, kind, descriptor, other_descriptor) == 0


def process_vm_read(pid: int, address: int, size: int) -> bytes:
    """Return bytes of another process's memory (process_vm_readv(2)).

    Raises:
        OSError: Not all of it could be read: EFAULT where nothing is mapped.
    """
    buffer = ctypes.create_string_buffer(size)
    # Not ctypes.cast: what it returns keeps the buffer in a cycle, and so in memory for long.
    ours = _IoVec(ctypes.addressof(buffer), size)
    theirs = _IoVec(address, size)
    count = _process_vm_readv(pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)
    if count != size:
        raise OSError(errno.EFAULT, f"process_vm_readv: {count} of {size} bytes could be read")
    return buffer.raw


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)
