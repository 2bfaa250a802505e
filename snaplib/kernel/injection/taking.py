"""A userfaultfd that a process makes for us, and nobody keeps."""

from __future__ import annotations

import os
import re

from snaplib.kernel.injection.calls import pidfd_getfd
from snaplib.kernel.injection.machine import HERE
from snaplib.kernel.injection.process import (
    check_untraced,
    children,
    choose_thread,
    find_code,
    read,
    trace_options,
)
from snaplib.kernel.injection.stoppedthread import StoppedThread

__all__ = ["take"]

# linux/userfaultfd.h. Without it an ordinary user gets EPERM (vm.unprivileged_userfaultfd = 0);
# writes by the kernel are seen all the same, as asynchronous write protection calls no handler.
_UFFD_USER_MODE_ONLY = 1

#: What trackers ask of a userfaultfd (`snaplib.kernel.uffd`), and where its fdinfo tells:
#: UFFD_FEATURE_WP_ASYNC, _WP_UNPOPULATED and _WP_HUGETLBFS_SHMEM.
_FEATURES = 1 << 15 | 1 << 13 | 1 << 12
_API = re.compile(rb"^API:\s*\w+:(\w+)", re.MULTILINE)


def take(pid: int) -> tuple[int, float]:
    """Return our copy of a new userfaultfd of a process, and for how long a thread stood still."""
    check_untraced(pid)
    code_address = find_code(pid)
    inherited = _inherited(pid)
    pidfd = os.pidfd_open(pid)
    try:
        flags = os.O_CLOEXEC | os.O_NONBLOCK | _UFFD_USER_MODE_ONLY
        with StoppedThread(pid, choose_thread(pid), code_address, trace_options(pid)) as thread:
            for descriptor in inherited:
                thread.call("close", HERE.close, descriptor)
            theirs = thread.call("userfaultfd", HERE.userfaultfd, flags)
            try:
                ours = pidfd_getfd(pidfd, theirs)
            finally:
                thread.call("close", HERE.close, theirs)
        _close_in_children(pid, theirs)
        return ours, thread.stopped_s
    finally:
        os.close(pidfd)


def _close_in_children(pid: int, descriptor: int) -> None:
    """Close it in children that another thread forked just when it was open: CRIU would refuse them.

    A child whose fork is still under way is not seen; `take` of the child itself does it then.
    """
    for child in children(pid):
        try:
            if _is_userfaultfd(child, descriptor):
                tid = choose_thread(child)
                with StoppedThread(child, tid, find_code(child), trace_options(child)) as thread:
                    thread.call("close", HERE.close, descriptor)
        except OSError:
            # It has ended or executed another program, which closed it.
            continue


def _inherited(pid: int) -> list[int]:
    """Return descriptors of trackers that a process inherited by being forked at the wrong moment.

    Told from userfaultfds of its own by what they were opened for.
    """
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - as above
        try:
            if _is_userfaultfd(pid, int(name)):
                api = _API.search(read(f"/proc/{pid}/fdinfo/{name}"))
                if api and int(api[1], 16) & _FEATURES == _FEATURES:
                    found.append(int(name))
        except FileNotFoundError:
            continue
    return found


def _is_userfaultfd(pid: int, descriptor: int) -> bool:
    target = os.readlink(f"/proc/{pid}/fd/{descriptor}")  # noqa: PTH115 - as above
    return target == "anon_inode:[userfaultfd]"
