"""ptrace(2) and pidfd_getfd(2), declared and checked here, for `snaplib.kernel.syscalls` is not there."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Any

from snaplib.kernel.injection.machine import HERE

__all__ = [
    "CONT",
    "DETACH",
    "EVENT_STOP",
    "GETSIGMASK",
    "GET_RSEQ_CONFIGURATION",
    "INTERRUPT",
    "O_SUSPEND_SECCOMP",
    "O_TRACESYSGOOD",
    "SEIZE",
    "SETSIGMASK",
    "SYSCALL",
    "Registers",
    "get_registers",
    "pidfd_getfd",
    "ptrace",
    "set_registers",
]

# linux/ptrace.h
CONT = 7
DETACH = 17
SYSCALL = 24
_GETREGSET = 0x4204
_SETREGSET = 0x4205
SEIZE = 0x4206
INTERRUPT = 0x4207
GETSIGMASK = 0x420A
SETSIGMASK = 0x420B
GET_RSEQ_CONFIGURATION = 0x420F
O_TRACESYSGOOD = 1
O_SUSPEND_SECCOMP = 1 << 21
EVENT_STOP = 128
_NT_PRSTATUS = 1  # linux/elf.h

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_long]


class Registers(ctypes.Structure):
    """The general registers of a thread, by their names."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in HERE.registers)


class _IoVec(ctypes.Structure):
    """struct iovec of sys/uio.h."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _checked(name: str, result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def ptrace(tid: int, name: str, request: int, address: int = 0, data: int = 0) -> None:
    """Make a request of ptrace(2) of a thread.

    Raises:
        OSError: It failed; the name is in its words.
    """
    _checked(name, _libc.ptrace(request, tid, address, data))


def get_registers(tid: int) -> Any:
    """Return the general registers of a stopped thread.

    Raises:
        OSError: ENOTSUP: it runs 32-bit code.
    """
    registers = Registers()
    vector = _IoVec(ctypes.addressof(registers), ctypes.sizeof(registers))
    ptrace(tid, "PTRACE_GETREGSET", _GETREGSET, _NT_PRSTATUS, ctypes.addressof(vector))
    if vector.length != ctypes.sizeof(registers):
        raise OSError(errno.ENOTSUP, "it runs 32-bit code")
    return registers


def set_registers(tid: int, registers: Any) -> None:
    """Give a stopped thread other registers."""
    vector = _IoVec(ctypes.addressof(registers), ctypes.sizeof(registers))
    ptrace(tid, "PTRACE_SETREGSET", _SETREGSET, _NT_PRSTATUS, ctypes.addressof(vector))


def pidfd_getfd(pidfd: int, descriptor: int) -> int:
    """Return our copy of a descriptor of another process."""
    return _checked("pidfd_getfd", _libc.syscall(HERE.pidfd_getfd, pidfd, descriptor, 0))
