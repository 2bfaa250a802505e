"""CRIU's log: which of its lines say why something failed.

CRIU's answer carries its first error line, which is nearly always a harmless one (a limit it could not raise); the
reason is further down.  Lines look like ``Error (criu/files-ext.c:98): Can't dump file 7 ...``, with a time stamp
``(00.012345)`` in front at higher log levels, ``pie: 42:`` where the parasite speaks and ``   42:`` where a process
being restored does.
"""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["failure_reasons", "log_tail"]

_ERROR = re.compile(
    r"^(?:\(\d+\.\d+\)\s*)?(?:pie:\s*)?(?:\s*\d+:\s*)?Error\s*\((?P<where>[^)]*)\):\s*(?P<text>.*)$"
)

#: Errors that CRIU logs and then carries on after, and those that only repeat that it failed.
_HARMLESS = (
    "rlimit: Can't setup",
    "tun: Unable to create tun",  # CRIU: criu/kerndat.c, where there is no /dev/net/tun
    "Dumping FAILED",
    "Restoring FAILED",
    "One of more action scripts failed",
    "RPC client reported script error",
)


def failure_reasons(log: str) -> tuple[str, ...]:
    """Return what a CRIU log says about a failure, in the order in which it was said, each once.

    Args:
        log: The text of the log.
    """
    reasons: list[str] = []
    for line in log.splitlines():
        found = _ERROR.match(line)
        if not found:
            continue
        text = found["text"].strip()
        if text and text not in reasons and not any(harmless in text for harmless in _HARMLESS):
            reasons.append(text)
    return tuple(reasons)


def log_tail(path: Path, lines: int = 40) -> str:
    """Return the last lines of a log file; nothing if there is no such file.

    Args:
        path: The log file.
        lines: How many lines at most.
    """
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
