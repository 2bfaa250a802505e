"""Pages of a task by their numbers in the log."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import attrs
import numpy as np

from snaplib.kernel.hidden import reads_hidden_memory
from snaplib.store import PAGE_BYTES, RunSet
from snaplib.track import MemoryKind, Unknown, WriteProtect
from snaplib.warm.copier import task_space

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from snaplib.kernel import ProcFs
    from snaplib.kernel.maps import Mapping
    from snaplib.store import PageLogWriter
    from snaplib.task import Task
    from snaplib.track import DirtyScan, ProcessScan, Tracker

__all__ = ["TaskPages", "numbered"]

#: `snaplib.kernel.pagemap.Category.PFNZERO`: a page that only reads as zeros.
_ZERO = np.uint16(1 << 5)


@attrs.frozen
class TaskPages:
    """The pages of a task's processes, as they are at one moment.

    Attributes:
        procfs: Where the processes are looked at.
        pids: Their pids as seen here, by those in the task's own PID namespace.
    """

    procfs: ProcFs
    pids: dict[int, int]

    @classmethod
    def of(cls, task: Task) -> TaskPages:
        """Return those of the processes that a task has now.

        Raises:
            TaskEnded: The task has ended.
        """
        return cls(task.procfs, {member.ns_pid: member.pid for member in task.members()})

    def changed(self, log: PageLogWriter, scan: DirtyScan) -> tuple[RunSet, RunSet]:
        """Return the pages whose copies are out of date, and of those the ones that have content.

        Args:
            log: Where the copies are.
            scan: What has changed.
        """
        ns_pids = {pid: ns_pid for ns_pid, pid in self.pids.items()}
        nothing = RunSet.of([], [])
        outdated, solid = nothing, nothing
        known = set()
        for process in scan.processes:
            ns_pid = ns_pids.get(process.pid)
            if ns_pid is None:
                continue
            space = task_space(ns_pid)
            if process.complete:
                known.add(space)
            changed, with_content = _numbers(process, log.page_number(space, 0))
            outdated |= changed
            solid |= with_content
        for space in log.spaces():
            if space not in known:
                # It has ended, or nothing is known of it; shared memory comes with each dump anew.
                outdated |= log.pages_of(space)
        return outdated, solid

    def expose_hidden(self, tracker: Tracker) -> list[tuple[int, Mapping]]:
        """Have CRIU send what the task made inaccessible, where the kernel keeps that from us.

        CRIU reads it by its own code in the task, but only what it takes for changed. Soft-dirty bits cannot be set:
        there such a page makes the dump a full one.

        Args:
            tracker: What tells CRIU that pages have changed.

        Returns:
            Those mappings, each with its process's pid in its own PID namespace.
        """
        if reads_hidden_memory() or not isinstance(tracker, WriteProtect):
            return []
        hidden = []
        for ns_pid, mapping in self._mappings():
            if mapping.perms[0] == "-" and not mapping.shared:
                tracker.expose(self.pids[ns_pid], mapping.start, mapping.end)
                hidden.append((ns_pid, mapping))
        return hidden

    def code(self, log: PageLogWriter) -> RunSet:
        """Return the pages that may be executed.

        CRIU makes a task run system calls for it, and writes them into its code for that moment: a
        copy that is made just then is wrong (CRIU: compel/src/lib/infect.c, compel_execute_syscall).

        Args:
            log: Whose numbers are wanted.
        """
        return numbered(
            log,
            (
                (ns_pid, mapping)
                for ns_pid, mapping in self._mappings()
                if "x" in mapping.perms and mapping.path != "[vsyscall]"
            ),
        )

    def _mappings(self) -> Iterator[tuple[int, Mapping]]:
        """Yield each mapping of each process that is still there, with its pid in its own PID namespace."""
        for ns_pid, pid in self.pids.items():
            with contextlib.suppress(ProcessLookupError):
                for mapping in self.procfs.maps(pid):
                    yield ns_pid, mapping


def numbered(log: PageLogWriter, mappings: Iterable[tuple[int, Mapping]]) -> RunSet:
    """Return the pages of some mappings.

    Args:
        log: Whose numbers are wanted.
        mappings: Each with its process's pid in its own PID namespace.
    """
    begins, ends = [], []
    for ns_pid, mapping in mappings:
        base = log.page_number(task_space(ns_pid), 0)
        begins.append(base + mapping.start // PAGE_BYTES)
        ends.append(base + mapping.end // PAGE_BYTES)
    return RunSet.of(begins, ends)


def _numbers(process: ProcessScan, base: int) -> tuple[RunSet, RunSet]:
    """Return the numbers of the private pages that may have changed, and of those with content."""
    runs = process.dirty
    runs = runs[(runs["kind"] == MemoryKind.PRIVATE) | (runs["kind"] == MemoryKind.PRIVATE_FILE)]
    begins = np.uint64(base) + runs["start"] // np.uint64(PAGE_BYTES)
    ends = begins + runs["pages"]
    empty = (runs["state"] & _ZERO != 0) & (runs["why"] == Unknown.KNOWN)
    return RunSet.of(begins, ends), RunSet.of(begins[~empty], ends[~empty])
