"""Takes a userfaultfd out of a running process, which does not notice.

A userfaultfd watches the memory of the process that makes it, so the process must make it: one of
its threads is stopped for some 0.3 ms and made to run two system calls, userfaultfd(2) and, when we
have our own copy of the descriptor (pidfd_getfd(2)), close(2). Its registers and signal mask are
put back before it runs on. Nothing is written to its memory. The thread is let go from a stop in
the kernel's signal path, where the kernel itself takes up a system call that the stop interrupted
(ptrace(2), "PTRACE_EVENT stops"; signal(7), "Interruption of system calls").

Between the two SETREGSETs the thread has registers that are not its own. Were the tracer killed
then, the kernel would let it run on with them, and it would crash. That is why this runs as a
script in a process of its own, in a session of its own, with signals ignored: killing the program
that tracks, or its process group, does not interrupt it. What remains is a SIGKILL sent to this
very process, or to the whole cgroup, within those 0.3 ms.

Started with ``python -I -S``: it imports only what the standard library has, and not snaplib.
Arguments: number of a SOCK_SEQPACKET socket, then pids. For each pid it sends one message, JSON
with ``pid``, ``errno``, ``detail`` and ``stopped_s``, with the descriptor beside it on success.
What differs between architectures is in `MACHINES`.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import re
import signal
import socket
import sys
import threading
import time
from typing import Any, NamedTuple, Self

__all__ = ["MACHINES", "Machine", "Registers", "machine", "main"]

# linux/ptrace.h
_CONT = 7
_DETACH = 17
_SYSCALL = 24
_GETREGSET = 0x4204
_SETREGSET = 0x4205
_SEIZE = 0x4206
_INTERRUPT = 0x4207
_GETSIGMASK = 0x420A
_SETSIGMASK = 0x420B
_GET_RSEQ_CONFIGURATION = 0x420F
_O_TRACESYSGOOD = 1
_O_SUSPEND_SECCOMP = 1 << 21
_EVENT_STOP = 128
_NT_PRSTATUS = 1  # linux/elf.h
_WALL = 0x40000000  # linux/wait.h

# linux/userfaultfd.h. Without it an ordinary user gets EPERM (vm.unprivileged_userfaultfd = 0);
# writes by the kernel are seen all the same, as asynchronous write protection calls no handler.
_UFFD_USER_MODE_ONLY = 1

#: What trackers ask of a userfaultfd (`snaplib.kernel.uffd`), and where its fdinfo tells:
#: UFFD_FEATURE_WP_ASYNC, _WP_UNPOPULATED and _WP_HUGETLBFS_SHMEM.
_FEATURES = 1 << 15 | 1 << 13 | 1 << 12
_API = re.compile(rb"^API:\s*\w+:(\w+)", re.MULTILINE)


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

_ALL_SIGNALS = 2**64 - 1
_NO_SYSCALL = 2**64 - 1

_STOP_DEADLINE_S = 1.0
_RSEQ_TRIES = 50

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_long]


def machine() -> Machine | None:
    """Return the facts of this machine's architecture; None where injection must not be tried."""
    name = platform.machine()
    if name not in _TRIED and os.environ.get("SNAPLIB_UNTRIED_MACHINE") != "1":
        return None
    return MACHINES.get(name)


#: Those of the only architecture that was tried where there are none: nothing is done with them.
_here = machine() or MACHINES["x86_64"]


class Registers(ctypes.Structure):
    """The general registers of a thread, by their names."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in _here.registers)


class _IoVec(ctypes.Structure):
    """struct iovec of sys/uio.h."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _checked(name: str, result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


class _StoppedThread:
    """One thread of another process, stopped, as a context manager.

    To be used in a thread of ours that ends soon: if the other one cannot be let go because it
    hangs in the kernel, the kernel detaches it when its tracer ends.
    """

    def __init__(self, pid: int, tid: int, code_address: int, options: int) -> None:
        self.pid = pid
        self.tid = tid
        self.code_address = code_address
        self.options = options
        self.mask = ctypes.c_uint64()
        self.stopped_s = 0.0
        self._changed = False

    def __enter__(self) -> Self:
        began = time.perf_counter()
        self._ptrace("PTRACE_SEIZE", _SEIZE, 0, self.options)
        try:
            self._stop_outside_rseq()
            if _here.code and getattr(self.saved, _here.code[0]) != _here.code[1]:
                raise OSError(errno.ENOTSUP, "it runs 32-bit code")
            self._ptrace("PTRACE_GETSIGMASK", _GETSIGMASK, 8, ctypes.addressof(self.mask))
            every = ctypes.c_uint64(_ALL_SIGNALS)
            self._ptrace("PTRACE_SETSIGMASK", _SETSIGMASK, 8, ctypes.addressof(every))
        except TimeoutError:
            # Not stopped, it cannot be detached: our own thread's end does it.
            raise
        except BaseException:
            self._ptrace("PTRACE_DETACH", _DETACH)
            raise
        self._began = began
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._changed:
                self._stop(resume_first=True)
                self._undo_interruption()
                self._set_registers(self.saved)
            self._ptrace("PTRACE_SETSIGMASK", _SETSIGMASK, 8, ctypes.addressof(self.mask))
            self._ptrace("PTRACE_DETACH", _DETACH)
        except ProcessLookupError:
            # It was killed meanwhile, and has nothing left that could be put back.
            return
        finally:
            self.stopped_s = time.perf_counter() - self._began

    def call(self, name: str, number: int, argument: int) -> int:
        """Make it run a system call of one argument and return what that returned."""
        registers = Registers.from_buffer_copy(self.saved)
        setattr(registers, _here.counter, self.code_address)
        setattr(registers, _here.number, number)
        setattr(registers, _here.argument, argument)
        if _here.interrupted:
            # -1: the kernel must not take up the interrupted call yet.
            setattr(registers, _here.interrupted, _NO_SYSCALL)
        self._changed = True
        self._set_registers(registers)
        for _ in ("entry", "exit"):
            self._ptrace("PTRACE_SYSCALL", _SYSCALL)
            while os.WSTOPSIG(self._wait()) != signal.SIGTRAP | 0x80:
                self._ptrace("PTRACE_SYSCALL", _SYSCALL)
        result = ctypes.c_int64(getattr(self._registers(), _here.result)).value
        if -4096 < result < 0:
            raise OSError(-result, f"{name} in pid {self.pid}: {os.strerror(-result)}")
        return result

    def _stop_outside_rseq(self) -> None:
        for _ in range(_RSEQ_TRIES):
            self._stop()
            self.saved = self._registers()
            if self._interrupted_call() is not None or not self._in_rseq():
                return
            # A restartable sequence would be aborted by our change of registers: let it end.
            self._ptrace("PTRACE_CONT", _CONT)
        raise OSError(errno.EAGAIN, "it was always in a restartable sequence")

    def _stop(self, *, resume_first: bool = False) -> None:
        self._ptrace("PTRACE_INTERRUPT", _INTERRUPT)
        if resume_first:
            self._ptrace("PTRACE_CONT", _CONT)
        while True:
            status = self._wait()
            if status >> 16 == _EVENT_STOP:
                return
            # A signal was being delivered: let it through, the stop comes next.
            number = os.WSTOPSIG(status)
            ours = number in (signal.SIGTRAP, signal.SIGTRAP | 0x80)
            self._ptrace("PTRACE_CONT", _CONT, 0, 0 if ours else number)

    def _wait(self) -> int:
        deadline = time.monotonic() + _STOP_DEADLINE_S
        looks = 0
        while True:
            tid, status = os.waitpid(self.tid, _WALL | os.WNOHANG)
            if tid:
                break
            looks += 1
            if looks > 200:
                if time.monotonic() > deadline:
                    raise TimeoutError(errno.ETIMEDOUT, f"thread {self.tid} did not stop in time")
                time.sleep(0.00005)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            raise ProcessLookupError(errno.ESRCH, f"thread {self.tid} has ended")
        return status

    def _undo_interruption(self) -> None:
        """Make it run its interrupted call again where the kernel would not, unless a signal waits."""
        saved, call = self.saved, self._interrupted_call()
        if (
            call in _here.not_restarted
            and getattr(saved, _here.result) == 2**64 - errno.EINTR
            and not self._signal_waits()
        ):
            setattr(saved, _here.number, call)
            setattr(saved, _here.interrupted, _NO_SYSCALL)
            counter = getattr(saved, _here.counter)
            setattr(saved, _here.counter, counter - len(_here.instruction))

    def _interrupted_call(self) -> int | None:
        """Return the number of the system call that the stop has interrupted, where that is told."""
        if not _here.interrupted:
            return None
        number: int = getattr(self.saved, _here.interrupted)
        return None if number == _NO_SYSCALL else number

    def _signal_waits(self) -> bool:
        status = _read(f"/proc/{self.pid}/task/{self.tid}/status")
        waiting = 0
        for digits in re.findall(rb"^(?:SigPnd|ShdPnd):\s*(\w+)", status, re.MULTILINE):
            waiting |= int(digits, 16)
        return bool(waiting & ~self.mask.value)

    def _in_rseq(self) -> bool:
        """Whether it is in a restartable sequence: rseq_cs of struct rseq (linux/rseq.h)."""
        configuration = (ctypes.c_uint64 * 3)()
        try:
            self._ptrace(
                "PTRACE_GET_RSEQ_CONFIGURATION",
                _GET_RSEQ_CONFIGURATION,
                ctypes.sizeof(configuration),
                ctypes.addressof(configuration),
            )
        except OSError:
            # Linux before 5.13 or without CONFIG_RSEQ.
            return False
        if not configuration[0]:
            return False
        content = _read_memory(self.pid, configuration[0] + 8, 8)
        return content != bytes(8)

    def _registers(self) -> Any:
        registers = Registers()
        vector = _IoVec(ctypes.addressof(registers), ctypes.sizeof(registers))
        self._ptrace("PTRACE_GETREGSET", _GETREGSET, _NT_PRSTATUS, ctypes.addressof(vector))
        if vector.length != ctypes.sizeof(registers):
            raise OSError(errno.ENOTSUP, "it runs 32-bit code")
        return registers

    def _set_registers(self, registers: Any) -> None:
        vector = _IoVec(ctypes.addressof(registers), ctypes.sizeof(registers))
        self._ptrace("PTRACE_SETREGSET", _SETREGSET, _NT_PRSTATUS, ctypes.addressof(vector))

    def _ptrace(self, name: str, request: int, address: int = 0, data: int = 0) -> None:
        _checked(name, _libc.ptrace(request, self.tid, address, data))


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - starts without pathlib
        return file.read()


def _read_memory(pid: int, address: int, size: int) -> bytes:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:  # noqa: PTH123 - as above
        return os.pread(file.fileno(), size, address)


def _find_code(pid: int) -> int:
    """Return the address of a `syscall` instruction in a process: of the vdso, else of any code."""
    found = []
    for line in _read(f"/proc/{pid}/maps").splitlines():
        fields = line.split(None, 5)
        if fields[1][2:3] == b"x" and not line.endswith(b"[vsyscall]"):
            start, _, end = fields[0].partition(b"-")
            found.append((not line.endswith(b"[vdso]"), int(start, 16), int(end, 16)))
    for _, first, after in sorted(found):
        try:
            offset = _read_memory(pid, first, after - first).find(_here.instruction)
        except OSError:
            continue
        if offset >= 0:
            return first + offset
    if not found:
        raise ProcessLookupError(errno.ESRCH, f"pid {pid} has ended")
    raise OSError(errno.ENOEXEC, f"pid {pid} has no code that makes a system call")


def _choose_thread(pid: int) -> int:
    """Return the thread that a stop disturbs least: one waiting in a call the kernel restarts."""
    best = (9, 0)
    for name in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - starts without pathlib
        tid = int(name)
        try:
            state = _read(f"/proc/{pid}/task/{tid}/stat").rpartition(b")")[2].split()[0]
            if state in b"DZX":
                # A stop would have to wait for it; better than nothing, but not for a zombie.
                rank = 4 if state == b"D" else 9
            else:
                call = _read(f"/proc/{pid}/task/{tid}/syscall").split()[0]
                rank = 1 if call == b"running" else 2 if int(call) in _here.not_restarted else 0
        except (FileNotFoundError, ProcessLookupError, IndexError):
            continue
        best = min(best, (rank, tid))
        if rank == 0:
            break
    if best[0] == 9:
        raise ProcessLookupError(errno.ESRCH, f"pid {pid} has no living thread")
    return best[1]


def _options(pid: int) -> int:
    """Return the options to trace a process with."""
    if re.search(rb"^Seccomp:\s*[12]", _read(f"/proc/{pid}/status"), re.MULTILINE):
        # Its filter may kill it for a call it never makes. Fails with EPERM where not allowed.
        return _O_TRACESYSGOOD | _O_SUSPEND_SECCOMP
    return _O_TRACESYSGOOD


def _take(pid: int) -> tuple[int, float]:
    """Return our copy of a new userfaultfd of a process, and for how long a thread stood still."""
    status = _read(f"/proc/{pid}/status")
    tracer = re.search(rb"^TracerPid:\s*(\d+)", status, re.MULTILINE)
    if tracer and int(tracer[1]):
        raise OSError(errno.EPERM, f"it is being traced by pid {int(tracer[1])}")
    code_address = _find_code(pid)
    inherited = _inherited(pid)
    pidfd = os.pidfd_open(pid)
    try:
        flags = os.O_CLOEXEC | os.O_NONBLOCK | _UFFD_USER_MODE_ONLY
        with _StoppedThread(pid, _choose_thread(pid), code_address, _options(pid)) as thread:
            for descriptor in inherited:
                thread.call("close", _here.close, descriptor)
            theirs = thread.call("userfaultfd", _here.userfaultfd, flags)
            try:
                ours = _checked("pidfd_getfd", _libc.syscall(_here.pidfd_getfd, pidfd, theirs, 0))
            finally:
                thread.call("close", _here.close, theirs)
        _close_in_children(pid, theirs)
        return ours, thread.stopped_s
    finally:
        os.close(pidfd)


def _close_in_children(pid: int, descriptor: int) -> None:
    """Close it in children that another thread forked just when it was open: CRIU would refuse them.

    A child whose fork is still under way is not seen; `_take` of the child itself does it then.
    """
    for child in _children(pid):
        try:
            if _is_userfaultfd(child, descriptor):
                tid = _choose_thread(child)
                with _StoppedThread(child, tid, _find_code(child), _options(child)) as thread:
                    thread.call("close", _here.close, descriptor)
        except OSError:
            # It has ended or executed another program, which closed it.
            continue


def _children(pid: int) -> list[int]:
    """Return the children that a process can have forked while one of its threads was stopped."""
    if len(os.listdir(f"/proc/{pid}/task")) == 1:  # noqa: PTH208 - starts without pathlib
        return []
    found = []
    # Not task/TID/children: there, a child that ends while they are read hides others.
    for name in os.listdir("/proc"):  # noqa: PTH208 - as above
        if name.isdigit():
            try:
                fields = _read(f"/proc/{name}/stat").rpartition(b")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[1]) == pid:
                found.append(int(name))
    return found


def _inherited(pid: int) -> list[int]:
    """Return descriptors of trackers that a process inherited by being forked at the wrong moment.

    Told from userfaultfds of its own by what they were opened for.
    """
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - as above
        try:
            if _is_userfaultfd(pid, int(name)):
                api = _API.search(_read(f"/proc/{pid}/fdinfo/{name}"))
                if api and int(api[1], 16) & _FEATURES == _FEATURES:
                    found.append(int(name))
        except FileNotFoundError:
            continue
    return found


def _is_userfaultfd(pid: int, descriptor: int) -> bool:
    target = os.readlink(f"/proc/{pid}/fd/{descriptor}")  # noqa: PTH115 - as above
    return target == "anon_inode:[userfaultfd]"


def _serve(channel: socket.socket, pid: int) -> None:
    answer: dict[str, object] = {"pid": pid, "errno": 0, "detail": "", "stopped_s": 0.0}
    descriptors = []
    try:
        if machine() is None:
            raise OSError(errno.ENOTSUP, f"not tried on {platform.machine()} yet")
        descriptor, answer["stopped_s"] = _take(pid)
        descriptors.append(descriptor)
    except FileNotFoundError:
        answer["errno"], answer["detail"] = errno.ESRCH, "it has ended"
    except OSError as error:
        answer["errno"] = error.errno or errno.EIO
        answer["detail"] = error.strerror or str(error)
    try:
        socket.send_fds(channel, [json.dumps(answer).encode()], descriptors)
    except OSError:
        # Nobody listens any more; the descriptor goes when we end, and tracking with it.
        return
    finally:
        for one in descriptors:
            os.close(one)


def main() -> None:
    """Serve the request in the arguments."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    channel = socket.socket(fileno=int(sys.argv[1]))
    for pid in map(int, sys.argv[2:]):
        # A thread each: its end lets go of what could not be detached.
        thread = threading.Thread(target=_serve, args=(channel, pid))
        thread.start()
        thread.join()


if __name__ == "__main__":
    main()
