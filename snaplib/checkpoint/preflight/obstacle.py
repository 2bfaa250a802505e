"""One thing that stands in the way of a dump or a restore."""

from __future__ import annotations

from typing import Literal

import attrs

__all__ = ["SEVERITIES", "Obstacle", "Severity"]

Severity = Literal["fatal", "lost", "warning"]

#: The worst first.
SEVERITIES: tuple[Severity, ...] = ("fatal", "lost", "warning")


@attrs.frozen
class Obstacle:
    """One thing that stands in the way of a dump or a restore, and what can be done about it.

    Attributes:
        code: What kind of thing; a stable word such as ``io-uring-descriptor``.
        severity: ``fatal``: the dump or the restore would fail. ``lost``: both succeed, and
            something is not there afterwards. ``warning``: it depends on where and when.
        pid: The process that has it, as this host numbers it.
        ns_pid: The same process in its own PID namespace.
        comm: Its name.
        subject: What in it: ``fd 7``, ``mapping 7f1200000000-7f1200001000``, ``process``.
        message: What is wrong with it, naming the path, the peer or the inode; one line.
        remedy: What to do about it; one line.
    """

    code: str
    severity: Severity
    pid: int
    ns_pid: int
    comm: str
    subject: str
    message: str
    remedy: str

    @property
    def fatal(self) -> bool:
        """Whether the dump or the restore would fail."""
        return self.severity == "fatal"

    @property
    def sort_key(self) -> tuple[int, int, str, str]:
        """The worst first, then by process."""
        return SEVERITIES.index(self.severity), self.pid, self.code, self.subject
