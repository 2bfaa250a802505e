"""A thread of another process that stands still and runs what system calls it is made to."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import signal
import time
from typing import Self

from snaplib.kernel.injection.calls import (
    CONT,
    DETACH,
    EVENT_STOP,
    GET_RSEQ_CONFIGURATION,
    GETSIGMASK,
    INTERRUPT,
    SEIZE,
    SETSIGMASK,
    SYSCALL,
    Registers,
    get_registers,
    ptrace,
    set_registers,
)
from snaplib.kernel.injection.machine import HERE
from snaplib.kernel.injection.process import read, read_memory

__all__ = ["StoppedThread"]

_WALL = 0x40000000  # linux/wait.h
_ALL_SIGNALS = 2**64 - 1
_NO_SYSCALL = 2**64 - 1

_STOP_DEADLINE_S = 1.0
_RSEQ_TRIES = 50


class StoppedThread:
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
        self._ptrace("PTRACE_SEIZE", SEIZE, 0, self.options)
        try:
            self._stop_outside_rseq()
            if HERE.code and getattr(self.saved, HERE.code[0]) != HERE.code[1]:
                raise OSError(errno.ENOTSUP, "it runs 32-bit code")
            self._ptrace("PTRACE_GETSIGMASK", GETSIGMASK, 8, ctypes.addressof(self.mask))
            every = ctypes.c_uint64(_ALL_SIGNALS)
            self._ptrace("PTRACE_SETSIGMASK", SETSIGMASK, 8, ctypes.addressof(every))
        except TimeoutError:
            # Not stopped, it cannot be detached: our own thread's end does it.
            raise
        except BaseException:
            self._ptrace("PTRACE_DETACH", DETACH)
            raise
        self._began = began
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._changed:
                self._stop(resume_first=True)
                self._undo_interruption()
                set_registers(self.tid, self.saved)
            self._ptrace("PTRACE_SETSIGMASK", SETSIGMASK, 8, ctypes.addressof(self.mask))
            self._ptrace("PTRACE_DETACH", DETACH)
        except ProcessLookupError:
            # It was killed meanwhile, and has nothing left that could be put back.
            return
        finally:
            self.stopped_s = time.perf_counter() - self._began

    def call(self, name: str, number: int, argument: int) -> int:
        """Make it run a system call of one argument and return what that returned."""
        registers = Registers.from_buffer_copy(self.saved)
        setattr(registers, HERE.counter, self.code_address)
        setattr(registers, HERE.number, number)
        setattr(registers, HERE.argument, argument)
        if HERE.interrupted:
            # -1: the kernel must not take up the interrupted call yet.
            setattr(registers, HERE.interrupted, _NO_SYSCALL)
        self._changed = True
        set_registers(self.tid, registers)
        for _ in ("entry", "exit"):
            self._ptrace("PTRACE_SYSCALL", SYSCALL)
            while os.WSTOPSIG(self._wait()) != signal.SIGTRAP | 0x80:
                self._ptrace("PTRACE_SYSCALL", SYSCALL)
        result = ctypes.c_int64(getattr(get_registers(self.tid), HERE.result)).value
        if -4096 < result < 0:
            raise OSError(-result, f"{name} in pid {self.pid}: {os.strerror(-result)}")
        return result

    def _stop_outside_rseq(self) -> None:
        for _ in range(_RSEQ_TRIES):
            self._stop()
            self.saved = get_registers(self.tid)
            if self._interrupted_call() is not None or not self._in_rseq():
                return
            # A restartable sequence would be aborted by our change of registers: let it end.
            self._ptrace("PTRACE_CONT", CONT)
        raise OSError(errno.EAGAIN, "it was always in a restartable sequence")

    def _stop(self, *, resume_first: bool = False) -> None:
        self._ptrace("PTRACE_INTERRUPT", INTERRUPT)
        if resume_first:
            self._ptrace("PTRACE_CONT", CONT)
        while True:
            status = self._wait()
            if status >> 16 == EVENT_STOP:
                return
            # A signal was being delivered: let it through, the stop comes next.
            number = os.WSTOPSIG(status)
            ours = number in (signal.SIGTRAP, signal.SIGTRAP | 0x80)
            self._ptrace("PTRACE_CONT", CONT, 0, 0 if ours else number)

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
            call in HERE.not_restarted
            and getattr(saved, HERE.result) == 2**64 - errno.EINTR
            and not self._signal_waits()
        ):
            setattr(saved, HERE.number, call)
            setattr(saved, HERE.interrupted, _NO_SYSCALL)
            counter = getattr(saved, HERE.counter)
            setattr(saved, HERE.counter, counter - len(HERE.instruction))

    def _interrupted_call(self) -> int | None:
        """Return the number of the system call that the stop has interrupted, where that is told."""
        if not HERE.interrupted:
            return None
        number: int = getattr(self.saved, HERE.interrupted)
        return None if number == _NO_SYSCALL else number

    def _signal_waits(self) -> bool:
        status = read(f"/proc/{self.pid}/task/{self.tid}/status")
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
                GET_RSEQ_CONFIGURATION,
                ctypes.sizeof(configuration),
                ctypes.addressof(configuration),
            )
        except OSError:
            # Linux before 5.13 or without CONFIG_RSEQ.
            return False
        if not configuration[0]:
            return False
        content = read_memory(self.pid, configuration[0] + 8, 8)
        return content != bytes(8)

    def _ptrace(self, name: str, request: int, address: int = 0, data: int = 0) -> None:
        ptrace(self.tid, name, request, address, data)
