"""Why CRIU failed, in one line: what its log says, and what helps."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from snaplib.checkpoint.dumprequest import DUMP_LOG
from snaplib.criu import Criu, CriuError, failure_reasons, log_tail, remedy_for
from snaplib.criu.connections import read_servers
from snaplib.errors import DumpFailed, RestoreFailed
from snaplib.store import Snapshot

__all__ = ["RESTORE_LOG", "dump_failure", "restore_failure"]

#: CRIU's log of a restore, in the folder of images.
RESTORE_LOG = "restore.log"
_LOG_LINES = 2000
_CANNOT_BIND = re.compile(r"Can't bind inet socket \(id (?P<id>\d+)\)")
_SHOWN_LINES = 40


def dump_failure(
    error: CriuError, pid: int, images: Path, also: BaseException | None
) -> DumpFailed:
    """Return what is behind the failure of a dump.

    Args:
        error: What CRIU answered.
        pid: What it was to dump.
        images: Where its log is.
        also: What failed on our side, where the log says nothing.
    """
    log = log_tail(images / DUMP_LOG, lines=_LOG_LINES)
    reasons = failure_reasons(log)
    if not reasons and also is not None:
        reasons = (str(also),)
    text = reasons[0] if reasons else str(error)
    return DumpFailed(
        f"CRIU could not dump pid {pid}: {text}; the task runs on",
        reasons=reasons,
        log=_shown(log),
        hint=remedy_for(reasons) or f"see what stands in the way with `snaplib preflight {pid}`",
    )


def restore_failure(
    error: CriuError, criu: Criu, snapshot: Snapshot, images: Path
) -> RestoreFailed:
    """Return what is behind the failure of a restore.

    Args:
        error: What CRIU answered.
        criu: The CRIU that did.
        snapshot: What it was to restore.
        images: Where its log is.
    """
    log = log_tail(images / RESTORE_LOG, lines=_LOG_LINES)
    reasons = failure_reasons(log)
    text = reasons[0] if reasons else str(error)
    return RestoreFailed(
        f"CRIU could not restore snapshot {snapshot.id}: {text}",
        reasons=reasons,
        log=_shown(log),
        hint=_address_needed(criu, reasons, images)
        or remedy_for(reasons)
        or "the snapshot is as it was; see CRIU's log with -v",
    )


def _address_needed(criu: Criu, reasons: tuple[str, ...], images: Path) -> str:
    """Return which address the task's servers need and do not get; empty if that is not it.

    Args:
        criu: The CRIU that failed.
        reasons: What its log says.
        images: The images.
    """
    found = next(filter(None, map(_CANNOT_BIND.search, reasons)), None)
    if found is None:
        return ""
    with contextlib.suppress(ValueError):
        for one in read_servers(criu, images):
            if one.id == int(found["id"]):
                return (
                    f"the task has a server at {one.local}: see to it that the address is here and the port is free, "
                    "as it was when the task was saved"
                )
    return ""


def _shown(log: str) -> str:
    return "\n".join(log.splitlines()[-_SHOWN_LINES:])
