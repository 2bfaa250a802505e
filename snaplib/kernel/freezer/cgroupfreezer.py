"""Freezing by a cgroup that is the task's own."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from snaplib.errors import DeadlineExceeded
from snaplib.kernel.freezer.base import POLL_S, Freezer

if TYPE_CHECKING:
    from snaplib.kernel.cgroup import TaskCgroup
    from snaplib.kernel.guard import Guard

__all__ = ["CgroupFreezer"]

#: How long a cgroup may take to freeze before it is asked once more.
_REQUEST_AGAIN_S = 0.005


class CgroupFreezer(Freezer):
    """Freezes a cgroup.

    Args:
        cgroup: One whose processes are the task's, and no others.
    """

    def __init__(self, cgroup: TaskCgroup) -> None:
        super().__init__()
        self.cgroup = cgroup
        self.kind = f"cgroup-v{cgroup.version}"
        self.key = os.fspath(cgroup.path)
        self._ours = False

    def _stop(self, guardian: Guard, deadline: float) -> None:
        cgroup = self.cgroup
        # Who froze it before us wants it frozen afterwards.
        self._ours = not cgroup.requested()
        if self._ours:
            where = os.fsencode(cgroup.control).hex()
            guardian.tell(f"write {where} {cgroup.thaw_word}")
            cgroup.request(frozen=True)
        again = time.monotonic() + _REQUEST_AGAIN_S
        while not cgroup.frozen():
            now = time.monotonic()
            if now > deadline:
                raise DeadlineExceeded(
                    f"the cgroup {cgroup.path} did not freeze in time",
                    hint="a process in it waits in the kernel, perhaps for a disk; try again",
                )
            if now > again:
                # The freezer of version 1 passes by a parent in vfork(2) and does not come back
                # for it (seen on Linux 6.18); its documentation says to ask again.
                cgroup.request(frozen=True)
                again = now + _REQUEST_AGAIN_S
            time.sleep(POLL_S)

    def _resume(self) -> None:
        if self._ours:
            self._ours = False
            self.cgroup.request(frozen=False)
