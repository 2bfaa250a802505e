"""Stopping a whole task for a moment, so that it surely runs again.

A cgroup freezer is used where the task has a cgroup of its own, else every process is stopped with
SIGSTOP. Before anything is stopped, a guardian process (`snaplib.kernel.guardian`) knows what and
until when: the task runs again at the deadline even if this process hangs or is killed.
"""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from snaplib.errors import DeadlineExceeded, RootRequired, TaskEnded
from snaplib.kernel.cgroup import TaskCgroup, find_cgroup
from snaplib.kernel.guard import Guard

if TYPE_CHECKING:
    from snaplib.kernel.procfs import ProcFs

__all__ = ["CgroupFreezer", "Freezer", "StopFreezer", "choose_freezer"]

#: After this long a thread that does not stop may be waiting for one that has been stopped.
_FIRST_ATTEMPT_S = 0.02

#: How long a cgroup may take to freeze before it is asked once more.
_REQUEST_AGAIN_S = 0.005

_POLL_S = 0.0005


class Freezer(ABC):
    """Freezes one task and thaws it again.

    Attributes:
        kind: ``cgroup-v2``, ``cgroup-v1`` or ``stop``.
        key: What it freezes; two freezers of the same thing have the same.
    """

    kind: str
    key: str

    def __init__(self) -> None:
        self._guardian: Guard | None = None
        self._deadline: float | None = None

    def freeze(self, deadline_s: float) -> float:
        """Stop the task; return when all of it stands still.

        Args:
            deadline_s: The task runs again so many seconds after the first of it was told to stop, whatever happens.
                The guardian is there by then: on a busy machine it takes its time to start.

        Returns:
            When it runs again at the latest, in seconds of ``time.monotonic()``.

        Raises:
            DeadlineExceeded: It did not stand still in time; it runs again.
            TaskEnded: It has ended.
            RootRequired: This process may not stop it.
        """
        if self._deadline is not None:
            raise RuntimeError("the task is frozen already")
        if self._guardian is None or not self._guardian.alive:
            self._guardian = Guard()
        self._deadline = deadline = time.monotonic() + deadline_s
        try:
            self._guardian.tell(f"arm {deadline!r}")
            self._stop(self._guardian, deadline)
        except BaseException as error:
            self._release()
            if isinstance(error, PermissionError) and not isinstance(error, RootRequired):
                raise RootRequired(f"the task may not be frozen by this user: {error}") from error
            if isinstance(error, ProcessLookupError) and not isinstance(error, TaskEnded):
                raise TaskEnded("the task ended while it was being frozen") from error
            if isinstance(error, BrokenPipeError):
                raise DeadlineExceeded(
                    "the guardian that resumes the task was killed; the task was resumed",
                    hint="try again",
                ) from error
            raise
        return deadline

    def thaw(self) -> None:
        """Let the task run again; harmless when it runs already.

        Raises:
            DeadlineExceeded: The guardian did so before, at the deadline: it has been running.
        """
        deadline, late_by_s = self._deadline, 0.0
        self._release()
        if deadline is not None:
            late_by_s = time.monotonic() - deadline
        if late_by_s > 0:
            raise DeadlineExceeded(
                "the task was frozen longer than allowed and was resumed at its deadline",
                hint="allow more time, or do less while it is frozen",
            )

    def close(self) -> None:
        """End the guardian. The task is thawed if need be."""
        self._release()
        if self._guardian is not None:
            self._guardian.close()
            self._guardian = None

    def _release(self) -> None:
        if self._deadline is None:
            return
        self._deadline = None
        assert self._guardian is not None
        try:
            self._resume()
        finally:
            # Only now: killed in between, the guardian resumes once more, which does no harm.
            try:
                self._guardian.tell("disarm")
            except BrokenPipeError:
                self._guardian.close()
                self._guardian = None

    @abstractmethod
    def _stop(self, guardian: Guard, deadline: float) -> None:
        """Tell the guardian how to resume each thing, then stop it; wait until all is still."""

    @abstractmethod
    def _resume(self) -> None:
        """Resume what `_stop` has stopped."""


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
            time.sleep(_POLL_S)

    def _resume(self) -> None:
        if self._ours:
            self._ours = False
            self.cgroup.request(frozen=False)


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
                time.sleep(_POLL_S)

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


def choose_freezer(procfs: ProcFs, pid: int, cgroup: TaskCgroup | None = None) -> Freezer:
    """Return the best freezer for a task: of its own cgroup, else by signals.

    Args:
        procfs: Where the processes are seen.
        pid: The task's root.
        cgroup: The one that was made for the task, if any.

    Raises:
        ProcessLookupError: The task has ended.
    """
    if cgroup is not None and cgroup.holds(procfs, pid):
        return CgroupFreezer(cgroup)
    found = find_cgroup(procfs, pid)
    return StopFreezer(procfs, pid) if found is None else CgroupFreezer(found)
