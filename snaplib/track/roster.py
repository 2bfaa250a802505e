"""The armed processes of a task: new ones are armed, ended ones let go."""

from __future__ import annotations

import contextlib
import errno
import time
from typing import TYPE_CHECKING

import attrs

from snaplib.kernel.syscalls import KCMP_VM, kcmp
from snaplib.kernel.uffd import take_userfaultfds
from snaplib.track.armed import ArmedProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from fractions import Fraction

    from snaplib.kernel import ProcFs

__all__ = ["Roster"]

#: A process that could not be armed is left alone this long, then twice as long, and so on: each
#: try may stop one of its threads for a second.
_FIRST_RETRY_S = 10.0

#: For so long closing asks for huge pages; the rest comes back by the kernel's khugepaged.
_COLLAPSE_S = 0.2


@attrs.frozen
class _Failure:
    """Why a process is not armed, and when to try again."""

    detail: str
    retry_at_s: float
    retry_after_s: float


class Roster:
    """Knows which processes are armed, and why the others are not.

    Args:
        procfs: Where the processes are seen.
        sample: The fraction of their memory to arm, or None for all.
    """

    def __init__(self, procfs: ProcFs, sample: Fraction | None) -> None:
        self._procfs = procfs
        self._sample = sample
        self._failures: dict[int, _Failure] = {}
        self._known: frozenset[int] = frozenset()
        self.armed: dict[int, ArmedProcess] = {}

    def detail(self, pid: int) -> str:
        """Return why a process is not armed."""
        if pid in self._failures:
            return self._failures[pid].detail
        return "it has just appeared"

    def failed(self) -> tuple[tuple[int, str], ...]:
        """Return the processes that could not be armed, each with the reason."""
        return tuple((pid, failure.detail) for pid, failure in sorted(self._failures.items()))

    def keep(self, pids: Sequence[int]) -> None:
        """Let go of all processes but these."""
        alive = frozenset(pids)
        for pid in self.armed.keys() - alive:
            self.armed.pop(pid).close()
        for pid in self._failures.keys() - alive:
            del self._failures[pid]

    def arm(self, pids: Sequence[int], *, new_ones: bool) -> None:
        """Take those of these processes that are not armed. They must not be frozen.

        Args:
            pids: All processes of the task.
            new_ones: Also those that were not there at the last call. Most live too briefly to
                be worth it: compilers, the commands of a shell.
        """
        known, self._known = self._known, frozenset(pids)
        self.take([pid for pid in pids if new_ones or pid in known])

    def take(self, pids: Sequence[int]) -> None:
        """Take those of these processes that are not armed, whatever the rest does."""
        wanted: list[int] = []
        for pid in pids:
            if pid in self.armed or self._too_early(pid):
                continue
            if self._owner(pid, (*self.armed, *wanted)) is None:
                wanted.append(pid)
        for taken in take_userfaultfds(wanted):
            if taken.userfaultfd is None:
                if taken.errno != errno.ESRCH:
                    self._note(taken.pid, taken.detail)
                continue
            with self.attempt(taken.pid):
                self.armed[taken.pid] = ArmedProcess(
                    taken.pid, taken.userfaultfd, self._procfs, self._sample, lambda: self._known
                )
                self._failures.pop(taken.pid, None)

    @contextlib.contextmanager
    def attempt(self, pid: int) -> Iterator[None]:
        """Disarm a process when something goes wrong with it; it is armed anew at the next chance."""
        try:
            yield
        except (OSError, ValueError) as error:
            process = self.armed.pop(pid, None)
            if process is not None:
                process.close()
            if not isinstance(error, ProcessLookupError):
                self._note(pid, str(error))

    def close(self) -> None:
        """Disarm all of them."""
        until_s = time.monotonic() + _COLLAPSE_S
        try:
            for process in self.armed.values():
                process.disarm(until_s)
        finally:
            for process in self.armed.values():
                process.close()
            self.armed.clear()

    def owner(self, pid: int) -> int | None:
        """Return the armed process whose memory this one has, as after vfork(2); None for others."""
        return self._owner(pid, tuple(self.armed))

    def _owner(self, pid: int, others: Sequence[int]) -> int | None:
        for other in others:
            try:
                if kcmp(pid, other, KCMP_VM):
                    return other
            except OSError:
                # Not told; if they do share, REGISTER is refused and all counts as dirty.
                continue
        return None

    def _too_early(self, pid: int) -> bool:
        failure = self._failures.get(pid)
        return failure is not None and time.monotonic() < failure.retry_at_s

    def _note(self, pid: int, detail: str) -> None:
        last = self._failures.get(pid)
        wait_s = _FIRST_RETRY_S if last is None else 2 * last.retry_after_s
        self._failures[pid] = _Failure(detail, time.monotonic() + wait_s, wait_s)
