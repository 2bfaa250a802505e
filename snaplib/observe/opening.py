"""Which source a watch looks with: eBPF where it works, else /proc."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from snaplib.errors import HostUnfit
from snaplib.kernel.cgroup import find_cgroup
from snaplib.observe.ebpf import EbpfSource

if TYPE_CHECKING:
    from snaplib.kernel import ProcFs
    from snaplib.observe.source import Source

__all__ = ["open_source"]


def open_source(procfs: ProcFs, pid: int, wanted: Literal["ebpf", "proc"] | None) -> Source:
    """Open a source.

    Args:
        procfs: Where the processes are seen.
        pid: The root of the task.
        wanted: Have that one or nothing; by default eBPF where it works.

    Raises:
        ProcessLookupError: The task has ended.
        HostUnfit: eBPF was wanted and does not work.
    """
    if wanted == "proc":
        return _proc_source(procfs, pid)
    try:
        return EbpfSource(procfs, pid, cgroup_id=_own_cgroup_id(procfs, pid))
    except ProcessLookupError:
        raise
    except OSError as error:
        if wanted == "ebpf":
            raise HostUnfit(f"eBPF does not work here: {error}") from error
        return _proc_source(procfs, pid, str(error))


def _proc_source(procfs: ProcFs, pid: int, reason: str = "") -> Source:
    # Late: sock_diag and more that eBPF makes needless.
    from snaplib.observe.proc import ProcSource  # noqa: PLC0415

    return ProcSource(procfs, pid, reason=reason)


def _own_cgroup_id(procfs: ProcFs, pid: int) -> int:
    """Return the id of a version 2 cgroup that is a task's alone, which is its inode; 0 without one."""
    try:
        cgroup = find_cgroup(procfs, pid)
        return cgroup.path.stat().st_ino if cgroup is not None and cgroup.version == 2 else 0
    except ProcessLookupError:
        raise
    except OSError:
        return 0  # not mounted here, or not for us to look at
