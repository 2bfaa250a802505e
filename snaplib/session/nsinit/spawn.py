"""Starts the task's root: first child of the init, leader of a session and of a process group."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from snaplib.kernel.syscalls import set_child_subreaper

__all__ = ["LAST_RESERVED_PID", "Root", "set_last_pid"]

#: After a wrap-around the kernel hands out no pid below RESERVED_PIDS = 300 (kernel/pid.c), so with
#: a root above them the pids 2 to 299 stay free for CRIU itself, when it restores the task in a
#: namespace of its own.
LAST_RESERVED_PID = 299

#: errno, and whether it was the exec that failed or what comes before it.
_FAILED = struct.Struct("i?")


def set_last_pid(pid: int) -> None:
    """Let the next process of this PID namespace get the first free pid after `pid`; see ns_last_pid in proc(5)."""
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid))


class Root:
    """The task's root, stopped before its exec until it is released.

    Args:
        spec: The launch specification; `executable`, `argv`, `environment`, `directory`,
            `adopt_orphans` and `cgroups` of it are used.
        ends: What its descriptors 0, 1 and 2 are to be.
        terminal: What is to control its session; -1: nothing.
        oom_score_adj: What the caller had.
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        ends: Sequence[int],
        terminal: int,
        oom_score_adj: str,
    ) -> None:
        go_reading, self._go = os.pipe2(os.O_CLOEXEC)
        self._failure, failure_writing = os.pipe2(os.O_CLOEXEC)
        set_last_pid(LAST_RESERVED_PID)
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._go)
            _become(
                spec,
                ends,
                terminal=terminal,
                oom_score_adj=oom_score_adj,
                go=go_reading,
                failure=failure_writing,
            )
        os.close(go_reading)
        os.close(failure_writing)

    def release(self) -> tuple[str, int] | None:
        """Let it exec.

        Returns:
            None; or what failed, exec or prepare, and the errno.
        """
        with contextlib.suppress(BrokenPipeError):
            os.write(self._go, b"g")
        os.close(self._go)
        answer = os.read(self._failure, _FAILED.size)
        os.close(self._failure)
        if len(answer) != _FAILED.size:
            return None
        number, prepared = _FAILED.unpack(answer)
        return "exec" if prepared else "prepare", number


def _become(
    spec: Mapping[str, Any],
    ends: Sequence[int],
    *,
    terminal: int,
    oom_score_adj: str,
    go: int,
    failure: int,
) -> NoReturn:
    """Turn the forked child into the task."""
    prepared = False
    try:
        signal.set_wakeup_fd(-1)
        os.setsid()
        # Kept by the program that is executed, and by CRIU.
        set_child_subreaper(spec["adopt_orphans"])
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            # glibc keeps a few real-time signals to itself.
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        if terminal >= 0:
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(oom_score_adj)
        for procs in spec["cgroups"]:
            Path(procs).write_text("0")
        os.chdir(_bytes(spec["directory"]))
        # Moved out of the way first: an end may have one of the numbers it is to be copied to.
        spare = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
        go, failure = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (go, failure))
        for descriptor, end in enumerate(spare):
            os.dup2(end, descriptor, inheritable=True)
        if os.read(go, 1) != b"g":
            os._exit(1)
        os.close(go)
        prepared = True
        # Every other descriptor is close-on-exec.
        os.execve(  # noqa: S606 - this is what an init is for
            _bytes(spec["executable"]),
            [_bytes(word) for word in spec["argv"]],
            {_bytes(name): _bytes(value) for name, value in spec["environment"].items()},
        )
    except OSError as error:
        os.write(failure, _FAILED.pack(error.errno or 1, prepared))
    finally:
        os._exit(127)


def _bytes(text: str) -> bytes:
    """Undo `snaplib.session.launch.wire_text`."""
    return text.encode("latin-1")
