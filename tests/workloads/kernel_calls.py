"""System calls for the workloads, by their numbers on x86-64 and elsewhere."""

from __future__ import annotations

import ctypes
import os
import platform

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
LIBC.shmat.restype = ctypes.c_void_p

#: asm/unistd_64.h and asm-generic/unistd.h
NUMBERS = {
    "add_key": (248, 217),
    "bpf": (321, 280),
    "fsopen": (430, 430),
    "io_uring_setup": (425, 425),
    "keyctl": (250, 219),
    "landlock_create_ruleset": (444, 444),
    "memfd_secret": (447, 447),
    "mq_open": (240, 180),
    "mseal": (462, 462),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_open": (434, 434),
    "seccomp": (317, 277),
    "userfaultfd": (323, 282),
}
COLUMN = 0 if platform.machine() == "x86_64" else 1


class Unsupported(Exception):
    """This kernel does not have the feature."""


def checked(result: int, what: str) -> int:
    """Return the result of a call, or raise Unsupported with the reason of its failure."""
    if result < 0:
        raise Unsupported(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def system_call(name: str, *arguments: object) -> int:
    """Make a system call; a failure raises Unsupported."""
    wide = [
        ctypes.c_uint64(one & (2**64 - 1)) if isinstance(one, int) else one for one in arguments
    ]
    return checked(LIBC.syscall(NUMBERS[name][COLUMN], *wide), name)


def anonymous(size: int, flags: int = 0x22, protection: int = 3) -> int:
    """Map anonymous memory and return its address; MAP_PRIVATE | MAP_ANONYMOUS by default."""
    address = LIBC.mmap(None, size, protection, flags, -1, 0)
    if address in (None, 2**64 - 1):
        raise Unsupported(f"mmap: {os.strerror(ctypes.get_errno())}")
    return address
