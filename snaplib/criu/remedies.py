"""What to do about the reasons that CRIU's log gives; found by trying each on CRIU 4.2."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["remedy_for"]

#: A pattern of a reason, and what helps.  CRIU leaves out the first slash of paths.
_REMEDIES = (
    (
        r"File /?(?P<path>.+) has bad size (?P<now>\d+) \(expect (?P<then>\d+)\)",
        "/{path} had {then} bytes when the task was saved and has {now} now: put it back as it was",
    ),
    (
        r"File /?(?P<path>.+) has bad mode",
        "give /{path} the permissions it had when the task was saved",
    ),
    (
        r"Can't open file /?(?P<path>.+?)(?: on restore)?(?::|$)",
        "/{path} was open in the task: make it available here under the same path",
    ),
    (
        r"(?:FPU|CPU|fpu|cpu).*(?:not supported|incompatible|mismatch)",
        "restore it on a machine whose CPU has all features of the one it was saved on",
    ),
    (
        r"(?:No space left on device|ENOSPC)",
        "free space, or name another folder in $SNAPLIB_SCRATCH_DIR",
    ),
    (
        r"Peer \d+ unresolved",
        "it was connected to a server outside the task over a unix socket, which cannot be restored",
    ),
    (
        r"Can't create inotify: Too many open files",
        "raise /proc/sys/fs/inotify/max_user_instances: CRIU needs one itself",
    ),
    (
        r"Can't (?:bind|connect) inet socket back",
        "a connection of the task cannot be put in place here: --tcp auto resets those, --tcp close all",
    ),
    (
        r"failed sys_rseq\(.*\) = -22",
        "restore it under a kernel that knows restartable sequences as the one it was saved under does",
    ),
    (
        r"Some file locks are hold",
        "a process outside the task holds locks together with it",
    ),
)


def remedy_for(reasons: Iterable[str]) -> str:
    """Return what to do about the first reason that is known; empty if none is.

    Args:
        reasons: What `snaplib.criu.failure_reasons` gives.
    """
    for reason in reasons:
        for pattern, remedy in _REMEDIES:
            found = re.search(pattern, reason)
            if found:
                return remedy.format(**found.groupdict())
    return ""
