"""Trials of what restoring processes takes: namespaces, chosen pids, ptrace, pidfds, freezers."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from snaplib.kernel.cgroup import TaskCgroup
from snaplib.kernel.probe.trial import Failed, Trial, in_child
from snaplib.kernel.syscalls import (
    CLONE_NEWNS,
    CLONE_NEWPID,
    MS_PRIVATE,
    MS_REC,
    libc_function,
    mount,
    pidfd_getfd,
    prctl,
    process_vm_read,
    syscall,
    unshare,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["TRIALS"]

# linux/ptrace.h
_PTRACE_DETACH = 17
_PTRACE_SEIZE = 0x4206
_PTRACE_INTERRUPT = 0x4207

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

#: A pid that a fresh PID namespace would not give out by itself.
_CHOSEN_PID = 4711
_DEADLINE_S = 2.0


@contextlib.contextmanager
def _child() -> Iterator[int]:
    """Give the pid of a child that waits to be killed."""
    pid = os.fork()
    if pid == 0:
        # A trial that is killed for taking too long takes its child along.
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        while True:
            signal.pause()
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _eventually(condition: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + _DEADLINE_S
    while not condition():
        if time.monotonic() > give_up:
            raise Failed(f"{what} did not happen within {_DEADLINE_S:.0f} s")
        time.sleep(0.0005)


def _pid_namespace() -> str:
    unshare(CLONE_NEWPID)
    return in_child(lambda: f"pid {os.getpid()} inside" if os.getpid() == 1 else _not_first())


def _not_first() -> str:
    raise Failed(f"the first process inside has pid {os.getpid()}")


def _mount_namespace() -> str:
    unshare(CLONE_NEWPID | CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)

    def inside() -> str:
        mount("proc", "/proc", "proc")
        if Path("/proc/self").readlink() != Path("1"):
            raise Failed("a /proc mounted inside shows the outside")
        return "with a /proc of its own"

    return in_child(inside)


def _clone_set_tid() -> str:
    unshare(CLONE_NEWPID)

    def inside() -> str:
        chosen = (ctypes.c_int32 * 1)(_CHOSEN_PID)
        # struct clone_args, linux/sched.h: flags pidfd child_tid parent_tid exit_signal stack
        # stack_size tls set_tid set_tid_size cgroup
        fields = (0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(chosen), 1, 0)
        arguments = (ctypes.c_uint64 * len(fields))(*fields)
        pid = syscall("clone3", arguments, ctypes.sizeof(arguments))
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        if pid != _CHOSEN_PID:
            raise Failed(f"asked for pid {_CHOSEN_PID}, got {pid}")
        return f"pid {pid} chosen by clone3"

    return in_child(inside)


def _ns_last_pid() -> str:
    unshare(CLONE_NEWPID)

    def inside() -> str:
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(_CHOSEN_PID - 1))
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        if pid != _CHOSEN_PID:
            raise Failed(f"asked for pid {_CHOSEN_PID}, got {pid}")
        return "writable"

    return in_child(inside)


def _ptrace() -> str:
    ptrace = libc_function(
        "ptrace", ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p,
        restype=ctypes.c_long,
    )  # fmt: skip
    with _child() as pid:
        ptrace(_PTRACE_SEIZE, pid, None, None)
        ptrace(_PTRACE_INTERRUPT, pid, None, None)
        os.waitpid(pid, 0)
        ptrace(_PTRACE_DETACH, pid, None, None)
    with contextlib.suppress(OSError):
        scope = Path("/proc/sys/kernel/yama/ptrace_scope").read_text().strip()
        return f"seized a child; Yama's ptrace_scope is {scope}"
    return "seized a child"


def _pidfd() -> str:
    with _child() as pid:
        descriptor = os.pidfd_open(pid)
        copy = pidfd_getfd(descriptor, 2)
        os.close(copy)
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        if not poller.poll(_DEADLINE_S * 1000):
            raise Failed("a pidfd does not tell the end of its process")
    return "open, signal, getfd, poll"


def _process_vm_readv() -> str:
    text = b"as the child has it"
    buffer = ctypes.create_string_buffer(text)
    with _child() as pid:
        buffer.raw = bytes(len(buffer))
        if process_vm_read(pid, ctypes.addressof(buffer), len(text)) != text:
            raise Failed("read something else than the child's memory")
    return "read a child's memory"


def _proc_children() -> str:
    own = os.getpid()
    with _child() as pid:
        if str(pid) not in Path(f"/proc/{own}/task/{own}/children").read_text().split():
            raise Failed("a child is not listed")
    return "/proc/PID/task/TID/children"


def _freeze_by_cgroup(version: Literal[1, 2]) -> str:
    cgroup = TaskCgroup.create(f"snaplib-probe-{os.getpid()}", versions=[version])
    if cgroup is None:
        raise Failed("not mounted, or not writable")
    for left in cgroup.path.parent.glob("snaplib-probe-*"):
        # A trial that was killed removes nothing.
        if not Path("/proc", left.name.rpartition("-")[2]).exists():
            with contextlib.suppress(OSError):
                left.rmdir()
    try:
        with _child() as pid:
            cgroup.add(pid)
            try:
                cgroup.request(frozen=True)
                _eventually(cgroup.frozen, "the freeze")
            finally:
                cgroup.request(frozen=False)
    finally:
        cgroup.remove()
    return str(cgroup.path.parent)


def _freeze_by_stop() -> str:
    with _child() as pid:
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        os.kill(pid, signal.SIGCONT)
    return "SIGSTOP and SIGCONT"


def _inotify() -> str:
    os.close(libc_function("inotify_init1", ctypes.c_int)(0))
    return "an instance is left"


_AS_ROOT = "run it as root"
_CONTAINER = "run it as root; in a container, give it CAP_SYS_ADMIN (docker run --privileged)"

TRIALS = (
    Trial("pid_namespace", _pid_namespace, _CONTAINER, needed=True),
    Trial("mount_namespace", _mount_namespace, _CONTAINER, needed=True),
    Trial(
        "set_tid",
        _clone_set_tid,
        "run it as root, or give it CAP_CHECKPOINT_RESTORE; the kernel must be 5.5 or newer",
        needed=True,
    ),
    Trial("ns_last_pid", _ns_last_pid, "run it as root, with /proc/sys writable"),
    Trial(
        "ptrace",
        _ptrace,
        "run it as root; in a container, give it CAP_SYS_PTRACE; allow it in Yama"
        " (sysctl kernel.yama.ptrace_scope=1)",
        needed=True,
    ),
    Trial("pidfd", _pidfd, "the kernel must be 5.6 or newer, without a filter on it", needed=True),
    Trial("process_vm_readv", _process_vm_readv, "give it CAP_SYS_PTRACE"),
    Trial("proc_children", _proc_children, "the kernel must have CONFIG_PROC_CHILDREN"),
    Trial("freezer_cgroup_v2", lambda: _freeze_by_cgroup(2), "mount cgroup2 writable"),
    Trial("freezer_cgroup_v1", lambda: _freeze_by_cgroup(1), "not needed with cgroup v2"),
    Trial("freezer_stop", _freeze_by_stop, _AS_ROOT, needed=True),
    Trial(
        "inotify",
        _inotify,
        "raise the limit (sysctl fs.inotify.max_user_instances=1024)",
        needed=True,
    ),
)
