"""Freezing by signals."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from snaplib.errors import DeadlineExceeded
from snaplib.kernel.freezer.base import POLL_S, Freezer

if TYPE_CHECKING:
    from snaplib.kernel.guard import Guard
    from snaplib.kernel.procfs import ProcFs

__all__ = ["StopFreezer"]

#: After this long a thread that does not stop may be waiting for one that has been stopped.
_FIRST_ATTEMPT_S = 0.02


class StopFreezer(Freezer):
    """Stops every process of a tree with SIGSTOP, and new ones until there are no more.

    Unlike a cgroup freezer it can be seen: the parent of the root is told of the stop, and a
    process that handles SIGCONT is told of the thaw.

    Args:
        procfs: Where the processes are seen.
        pid: Root of the tree.
    """

    kind = "stop"

    def __init__(self, procfs: ProcFs, pid: int) -> None:
        super().__init__()
        self.key = str(pid)
        self._procfs = procfs
        self._pid = pid
        #: Those we have stopped, parents first: pid -> start_ticks.
        self._stopped: dict[int, int] = {}
        #: Those that somebody else had stopped before: they stay so.
        self._left_alone: set[int] = set()

    def _stop(self, guardian: Guard, deadline: float) -> None:
        self._left_alone = {
            pid for pid in self._procfs.tree(self._pid) if self._still(pid, only_stopped=True)
        }
        attempt_s = _FIRST_ATTEMPT_S
        while True:
            if self._try_once(guardian, min(deadline, time.monotonic() + attempt_s)):
                return
            if time.monotonic() >= deadline:
                moving = [pid for pid in self._procfs.tree(self._pid) if not self._still(pid)]
                raise DeadlineExceeded(
                    f"pid {', '.join(map(str, moving))} did not stop in time",
                    hint="it waits in the kernel, perhaps for a disk or a network share; try again",
                )
            # A parent in vfork(2) cannot stop before its child execs: let both go on a little.
            self._resume()
            time.sleep(attempt_s / 20)
            attempt_s *= 2

    def _try_once(self, guardian: Guard, until: float) -> bool:
        while True:
            members = self._procfs.tree(self._pid)
            known = self._stopped.keys() | self._left_alone
            fresh = [pid for pid in members if pid not in known]
            for pid in fresh:
                self._stop_one(guardian, pid)
            if not fresh and all(map(self._still, members)):
                # Everybody who could have forked stood still before this second look.
                if set(self._procfs.tree(self._pid)) <= set(members):
                    return True
                continue
            if time.monotonic() >= until:
                return False
            if not fresh:
                time.sleep(POLL_S)

    def _stop_one(self, guardian: Guard, pid: int) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            start_ticks = self._procfs.stat(pid).start_ticks
            guardian.tell(f"continue {pid} {start_ticks}")
            signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
            self._stopped[pid] = start_ticks
        except ProcessLookupError:
            if pid == self._pid:
                raise
        finally:
            os.close(pidfd)

    def _still(self, pid: int, *, only_stopped: bool = False) -> bool:
        """Return whether no thread of a process can do anything; ended ones cannot."""
        states = []
        try:
            for tid in self._procfs.threads(pid):
                try:
                    states.append(self._procfs.thread_stat(pid, tid).state)
                except ProcessLookupError:
                    continue
        except ProcessLookupError:
            return True
        return all(state in ("Tt" if only_stopped else "TtZX") for state in states)

    def _resume(self) -> None:
        # Children before parents, so that no parent's wait() sees a stopped child.
        while self._stopped:
            pid, start_ticks = self._stopped.popitem()
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                if self._procfs.stat(pid).start_ticks == start_ticks:
                    signal.pidfd_send_signal(pidfd, signal.SIGCONT)
            except ProcessLookupError:
                continue
            finally:
                os.close(pidfd)
