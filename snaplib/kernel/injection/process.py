"""What /proc tells of a process one of whose threads is to be stopped."""

from __future__ import annotations

import errno
import os
import re

from snaplib.kernel.injection.calls import O_SUSPEND_SECCOMP, O_TRACESYSGOOD
from snaplib.kernel.injection.machine import HERE

__all__ = [
    "check_untraced",
    "children",
    "choose_thread",
    "find_code",
    "read",
    "read_memory",
    "trace_options",
]


def read(path: str) -> bytes:
    """Return the content of a file of /proc."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - starts without pathlib
        return file.read()


def read_memory(pid: int, address: int, size: int) -> bytes:
    """Return what a process has at an address; less where its memory ends."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:  # noqa: PTH123 - as above
        return os.pread(file.fileno(), size, address)


def find_code(pid: int) -> int:
    """Return the address of a `syscall` instruction in a process: of the vdso, else of any code."""
    found = []
    for line in read(f"/proc/{pid}/maps").splitlines():
        fields = line.split(None, 5)
        if fields[1][2:3] == b"x" and not line.endswith(b"[vsyscall]"):
            start, _, end = fields[0].partition(b"-")
            found.append((not line.endswith(b"[vdso]"), int(start, 16), int(end, 16)))
    for _, first, after in sorted(found):
        try:
            offset = read_memory(pid, first, after - first).find(HERE.instruction)
        except OSError:
            continue
        if offset >= 0:
            return first + offset
    if not found:
        raise ProcessLookupError(errno.ESRCH, f"pid {pid} has ended")
    raise OSError(errno.ENOEXEC, f"pid {pid} has no code that makes a system call")


def choose_thread(pid: int) -> int:
    """Return the thread that a stop disturbs least: one waiting in a call the kernel restarts."""
    best = (9, 0)
    for name in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - starts without pathlib
        tid = int(name)
        try:
            state = read(f"/proc/{pid}/task/{tid}/stat").rpartition(b")")[2].split()[0]
            if state in b"DZX":
                # A stop would have to wait for it; better than nothing, but not for a zombie.
                rank = 4 if state == b"D" else 9
            else:
                call = read(f"/proc/{pid}/task/{tid}/syscall").split()[0]
                rank = 1 if call == b"running" else 2 if int(call) in HERE.not_restarted else 0
        except (FileNotFoundError, ProcessLookupError, IndexError):
            continue
        best = min(best, (rank, tid))
        if rank == 0:
            break
    if best[0] == 9:
        raise ProcessLookupError(errno.ESRCH, f"pid {pid} has no living thread")
    return best[1]


def trace_options(pid: int) -> int:
    """Return the options to trace a process with."""
    if re.search(rb"^Seccomp:\s*[12]", read(f"/proc/{pid}/status"), re.MULTILINE):
        # Its filter may kill it for a call it never makes. Fails with EPERM where not allowed.
        return O_TRACESYSGOOD | O_SUSPEND_SECCOMP
    return O_TRACESYSGOOD


def children(pid: int) -> list[int]:
    """Return the children that a process can have forked while one of its threads was stopped."""
    if len(os.listdir(f"/proc/{pid}/task")) == 1:  # noqa: PTH208 - starts without pathlib
        return []
    found = []
    # Not task/TID/children: there, a child that ends while they are read hides others.
    for name in os.listdir("/proc"):  # noqa: PTH208 - as above
        if name.isdigit():
            try:
                fields = read(f"/proc/{name}/stat").rpartition(b")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[1]) == pid:
                found.append(int(name))
    return found


def check_untraced(pid: int) -> None:
    """Raise ``OSError`` if somebody traces a process already: only one can."""
    tracer = re.search(rb"^TracerPid:\s*(\d+)", read(f"/proc/{pid}/status"), re.MULTILINE)
    if tracer and int(tracer[1]):
        raise OSError(errno.EPERM, f"it is being traced by pid {int(tracer[1])}")
