"""From the process that was started to PID 1 of a new namespace that no longer depends on anybody."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

from snaplib.kernel.isolation import make_mounts_slave, mount_proc
from snaplib.kernel.syscalls import CLONE_NEWNS, CLONE_NEWPID, unshare

__all__ = ["launch"]

#: Low enough to outlive its task, not so low as to be spared before system services.
_OOM_SCORE_ADJ = "-500"


def launch(spec_fd: int, report_fd: int) -> NoReturn:
    """Become a session's init, as the specification says; this process itself ends at once.

    Args:
        spec_fd: A file with the specification, one JSON object (`snaplib.session.launch`).
        report_fd: A stream socket of which the starter has the other end.
    """
    owner = socket.socket(fileno=report_fd)
    os.set_inheritable(report_fd, False)
    with open(spec_fd, "rb") as file:
        spec: dict[str, Any] = json.load(file)
    for fd in (*spec["outer"], *spec["data"]):
        os.set_inheritable(fd, False)
    for number in (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    try:
        os.setsid()
        unshare(CLONE_NEWPID | CLONE_NEWNS)
        if os.fork() != 0:
            os._exit(0)
        _isolate(spec)
    except OSError as error:
        _report(owner, {"failed": "isolate", "errno": error.errno, "error": str(error)})
        os._exit(1)
    from snaplib.session.nsinit.init import Init  # noqa: PLC0415 - the launcher does not need it

    try:
        Init(spec, owner).run()
    except Exception as error:
        _report(owner, {"failed": "init", "errno": 0, "error": f"{type(error).__name__}: {error}"})
        raise
    finally:
        sys.stdout.flush()
        os._exit(1)


def _isolate(spec: dict[str, Any]) -> None:
    """Set up PID 1 of the new namespaces; `spec` learns what can be seen from outside only."""
    make_mounts_slave()
    # This is still the caller's /proc: it tells our pid as the caller sees it.
    spec["host_pid"] = int(str(Path("/proc/self").readlink()))
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    spec["host_start_ticks"] = int(
        fields[19]
    )  # field 22 of proc_pid_stat(5); fields[0] is the third
    mount_proc()
    score = Path("/proc/self/oom_score_adj")
    spec["oom_score_adj"] = score.read_text().strip()
    # Lowering it needs CAP_SYS_RESOURCE.
    with contextlib.suppress(OSError):
        score.write_text(_OOM_SCORE_ADJ)


def _report(owner: socket.socket, message: dict[str, Any]) -> None:
    # The starter may be gone; then nobody wants to know.
    with contextlib.suppress(OSError):
        owner.sendall(json.dumps(message).encode() + b"\n")
