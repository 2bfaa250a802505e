"""Which processes can be attached to, and why the others cannot."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

from snaplib.errors import CannotDump, NoSuchTask, RootRequired

if TYPE_CHECKING:
    from snaplib.kernel.procfs import ProcFs

__all__ = ["check_attachable"]


def check_attachable(procfs: ProcFs, pid: int) -> None:
    """Check that a process can be the root of a task that is attached to.

    Args:
        procfs: Where the processes are seen.
        pid: The process.

    Raises:
        NoSuchTask: No process has this pid, or a thread has it.
        RootRequired: It belongs to someone else.
        CannotDump: It is a kernel thread, a zombie, init, this process or its ancestor.
    """
    if pid <= 0:
        raise NoSuchTask(f"{pid} is not a pid")
    try:
        stat, status = procfs.stat(pid), procfs.status(pid)
        threads = procfs.threads(pid)
    except ProcessLookupError:
        raise _absent(pid) from None
    who = f"pid {pid} ({stat.comm!r})"
    if status.tgid != pid:
        raise NoSuchTask(f"{pid} is a thread of process {status.tgid}", hint="name the process")
    if stat.kernel_thread:
        raise CannotDump(f"{who} is a kernel thread", hint="name a process in user space")
    if pid == 1:
        raise CannotDump("pid 1 is the init of this system", hint="name one of its descendants")
    if stat.zombie and threads == (pid,):
        raise CannotDump(f"{who} is a zombie: it has ended", hint="its parent has yet to reap it")
    if stat.zombie:
        raise CannotDump(
            f"the main thread of {who} has ended while others run on, which CRIU cannot dump",
            hint="let its main thread wait for the others",
        )
    own = os.getpid()
    if pid == own:
        raise CannotDump(f"{who} is snaplib itself", hint="name another process")
    while own > 1:
        own = procfs.stat(own).ppid
        if pid == own:
            raise CannotDump(
                f"{who} is an ancestor of snaplib, which would be dumped with it",
                hint="run snaplib from another shell or service",
            )
    _check_permitted(procfs, pid, status.uids[0], who)


def _check_permitted(procfs: ProcFs, pid: int, uid: int, who: str) -> None:
    try:
        # The same check of the kernel that ptrace(2) makes for reading.
        procfs.namespaces(pid)
    except PermissionError:
        try:
            owner = pwd.getpwuid(uid).pw_name
        except KeyError:
            owner = f"uid {uid}"
        if uid == os.getuid():
            raise RootRequired(f"{who} may not be looked into, though it is ours") from None
        raise RootRequired(
            f"{who} belongs to {owner}",
            hint=f"run it as {owner}" if uid == 0 else f"run it as root or as {owner}",
        ) from None
    except ProcessLookupError:
        raise _absent(pid) from None


def _absent(pid: int) -> NoSuchTask | RootRequired:
    """Tell a process that is not there from one that /proc hides from us (hidepid)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return RootRequired(f"pid {pid} belongs to someone else")
    except (ProcessLookupError, OverflowError):
        pass
    return NoSuchTask(f"there is no process {pid}")
