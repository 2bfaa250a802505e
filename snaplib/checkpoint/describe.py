"""What a manifest says of the task and the host it was dumped on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from snaplib.criu import Criu
from snaplib.task import Task

__all__ = ["cpu_features", "describe_host", "describe_task"]

#: The beginnings of names of instructions: of x86 (Linux: arch/x86/include/asm/cpufeatures.h), and of arm64
#: (arch/arm64/include/uapi/asm/hwcap.h).
_INSTRUCTIONS = (
    *(
        "sse",
        "ssse3",
        "avx",
        "fma",
        "bmi",
        "adx",
        "aes",
        "vaes",
        "pclmul",
        "vpclmul",
        "sha",
        "gfni",
        "amx",
    ),
    *(
        "popcnt",
        "lzcnt",
        "abm",
        "movbe",
        "movdir",
        "rdrand",
        "rdseed",
        "f16c",
        "xsave",
        "fsgsbase",
        "clwb",
        "cx16",
    ),
    *(
        "rtm",
        "hle",
        "serialize",
        "asimd",
        "atomics",
        "crc32",
        "sve",
        "sme",
        "pmull",
        "dcpop",
        "lrcpc",
        "bf16",
        "i8mm",
    ),
)

#: Begin like those, and are no business of a task.
_OF_KERNELS = {"smep", "xsaves", "xsaveerptr"}


def describe_host(criu: Criu) -> dict[str, Any]:
    """Return the host's part of a manifest: what a restore elsewhere has to fit.

    Args:
        criu: The CRIU that takes the dump.
    """
    system = platform.uname()
    return {
        "kernel": system.release,
        "arch": system.machine,
        "criu_version": criu.version_text,
        "cpu_features": cpu_features(),
    }


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Return the instructions that this machine's CPUs have, as the kernel names them, in order.

    A program finds them out when it starts, and libraries choose their routines by them: a task that goes on where
    one is missing ends with SIGILL.  Names that say nothing of instructions are left out.

    Args:
        cpuinfo: The file to read them from.
    """
    found: set[str] | None = None
    for line in cpuinfo.read_text(errors="replace").splitlines():
        name, _, text = line.partition(":")
        if name.strip() in ("flags", "Features"):
            here = set(text.split())
            found = here if found is None else found & here
    return sorted(name for name in (found or set()) - _OF_KERNELS if name.startswith(_INSTRUCTIONS))


def describe_task(task: Task) -> dict[str, Any]:
    """Return the task's part of a manifest: its members, and what CRIU does not restore by itself.

    Args:
        task: The task, best frozen.

    Returns:
        ``members`` with pids as the task itself sees them, and ``affinity``: the CPUs of each thread that is not
        free to run on all of them.
    """
    members = task.members()
    inside = task.thread_ids()
    everywhere = set(range(os.cpu_count() or 1))
    narrowed = {
        tid: sorted(cpus) for tid, cpus in task.affinity().items() if not everywhere <= cpus
    }
    root = next((member for member in members if member.pid == task.pid), None)
    return {
        "command": list(task.command),
        "cwd": task.cwd,
        "root_ns_pid": root.ns_pid if root else task.ns_pid,
        "members": [
            {
                "pid": member.ns_pid,
                **task.group_and_session(member),
                "comm": member.comm,
                "state": member.state,
                "threads": [inside[tid] for tid in member.threads if tid in inside],
            }
            for member in members
        ],
        "affinity": {str(tid): cpus for tid, cpus in narrowed.items()},
    }
