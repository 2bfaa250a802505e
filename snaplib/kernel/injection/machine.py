"""What differs between architectures when a thread is made to run a system call."""

from __future__ import annotations

import os
import platform
from typing import NamedTuple

__all__ = ["HERE", "MACHINES", "Machine", "machine"]


class Machine(NamedTuple):
    """What differs from one architecture to another.

    Attributes:
        registers: Names of what PTRACE_GETREGSET gives for NT_PRSTATUS, each of 64 bits.
        counter: The register that says where it runs.
        number: The register for the number of a system call.
        argument: That for its first argument.
        result: That for what it returns.
        interrupted: The register with the number of the call that a stop has interrupted, -1 if
            none; empty where the kernel has set up everything for another try before it stops.
        code: The register that tells 64-bit code from other, and its value then; None where the
            registers of other code have another size.
        instruction: That which makes a system call.
        close: Number of close(2).
        userfaultfd: Number of userfaultfd(2).
        pidfd_getfd: Number of pidfd_getfd(2).
        not_restarted: Calls that fail with EINTR after a stop, though no handler ran (signal(7)):
            semop, rt_sigtimedwait, io_getevents, semtimedop, epoll_wait, epoll_pwait,
            io_pgetevents, io_uring_enter, epoll_pwait2, recvmmsg; as far as they exist.
    """

    registers: tuple[str, ...]
    counter: str
    number: str
    argument: str
    result: str
    interrupted: str
    code: tuple[str, int] | None
    instruction: bytes
    close: int
    userfaultfd: int
    pidfd_getfd: int
    not_restarted: frozenset[int]


#: By what uname(2) calls them.
MACHINES = {
    # struct user_regs_struct of sys/user.h; asm/unistd_64.h; __USER_CS of asm/segment.h.
    "x86_64": Machine(
        registers=(
            *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8"),
            *("rax", "rcx", "rdx", "rsi", "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss"),
            *("fs_base", "gs_base", "ds", "es", "fs", "gs"),
        ),
        counter="rip",
        number="rax",
        argument="rdi",
        result="rax",
        interrupted="orig_rax",
        code=("cs", 0x33),
        instruction=b"\x0f\x05",  # syscall
        close=3,
        userfaultfd=323,
        pidfd_getfd=438,
        not_restarted=frozenset({65, 128, 208, 220, 232, 281, 299, 333, 426, 441}),
    ),
    # struct user_pt_regs of asm/ptrace.h; asm-generic/unistd.h. Before it stops the kernel turns an
    # interrupted call back to its beginning (do_signal of arch/arm64/kernel/signal.c), so that the
    # timeout of one that sleeps begins anew.
    "aarch64": Machine(
        registers=(*(f"x{number}" for number in range(31)), "sp", "pc", "pstate"),
        counter="pc",
        number="x8",
        argument="x0",
        result="x0",
        interrupted="",
        code=None,
        instruction=b"\x01\x00\x00\xd4",  # svc #0
        close=57,
        userfaultfd=282,
        pidfd_getfd=438,
        not_restarted=frozenset({4, 22, 137, 192, 193, 243, 292, 426, 441}),
    ),
}

#: Those on which it has been tried; others only when SNAPLIB_UNTRIED_MACHINE=1 asks for it.
_TRIED = frozenset({"x86_64"})


def machine() -> Machine | None:
    """Return the facts of this machine's architecture; None where injection must not be tried."""
    name = platform.machine()
    if name not in _TRIED and os.environ.get("SNAPLIB_UNTRIED_MACHINE") != "1":
        return None
    return MACHINES.get(name)


#: Those of the only architecture that was tried where there are none: nothing is done with them.
HERE = machine() or MACHINES["x86_64"]
