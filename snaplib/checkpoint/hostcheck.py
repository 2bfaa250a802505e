"""Whether this machine can go on with a task that was saved on another."""

from __future__ import annotations

import platform

from snaplib.checkpoint.describe import cpu_features
from snaplib.criu import Criu
from snaplib.errors import RestoreFailed
from snaplib.kernel.interfaces import is_up
from snaplib.store import Snapshot

__all__ = ["check_host", "check_loopback"]


def check_loopback() -> None:
    """Find out whether there is a loopback, without which CRIU waits for ever (CRIU: criu/kerndat.c).

    Raises:
        RestoreFailed: There is none that is up.
    """
    if not is_up("lo"):
        raise RestoreFailed(
            "the loopback of this network namespace is not up", hint="ip link set lo up"
        )


def check_host(snapshot: Snapshot, criu: Criu) -> None:
    """Find out before anything is fetched whether this machine can go on with a task.

    Args:
        snapshot: The task.
        criu: The CRIU that will restore it.

    Raises:
        RestoreFailed: It cannot.
    """
    here, there = platform.machine(), snapshot.host["arch"]
    if here != there:
        raise RestoreFailed(
            f"snapshot {snapshot.id} is of a {there} machine and this is {here}",
            hint="restore it on a machine of the same architecture",
        )
    missing = sorted(set(snapshot.host.get("cpu_features", ())) - set(cpu_features()))
    if missing:
        raise RestoreFailed(
            f"this machine's CPU lacks what the task may use: {', '.join(missing)}",
            hint="restore it on a machine whose CPU has all features of the one it was saved on",
        )
    written_by = str(snapshot.host.get("criu_version", criu.version_text))
    if tuple(int(part) for part in written_by.split(".")[:2]) > criu.version[:2]:
        raise RestoreFailed(
            f"snapshot {snapshot.id} was taken with CRIU {written_by} and this is "
            f"{criu.version_text}, which may not understand it",
            hint="install the newer CRIU, or name it in $SNAPLIB_CRIU",
        )
