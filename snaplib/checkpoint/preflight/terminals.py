"""Terminals: pseudo-terminals whose other side is outside, and /dev/tty.

CRIU restores a pair of which it has both sides, and a terminal that is handed over to it
(criu/tty.c); a lone slave it refuses, at the dump or at the restore.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snaplib.checkpoint.preflight.obstacle import Obstacle
    from snaplib.checkpoint.preflight.scene import FileFacts, Member, Scene

__all__ = ["check_controlling_terminal", "check_lone_slaves"]

#: CRIU knows slaves of the first major number only: the first 2^20 terminals.
_SLAVE_MAJOR = 136
_CONTROLLING = os.makedev(5, 0)
_MASTER = os.makedev(5, 2)

_REMEDY = "launch the task with `snaplib run`, or with its standard streams on files"


def check_lone_slaves(member: Member, scene: Scene) -> Iterator[Obstacle]:
    """Find terminals whose master is outside the task and not one of its owner's."""
    masters = {
        descriptor.extra["tty-index"][0]
        for one in scene.members.values()
        for descriptor in one.descriptors
        if "tty-index" in descriptor.extra and descriptor.fd in one.files
        if one.files[descriptor.fd].rdev == _MASTER
    }
    told: set[str] = set()
    for descriptor in member.descriptors:
        facts = member.files.get(descriptor.fd)
        if facts is None or not _is_slave(facts) or descriptor.target in told:
            continue
        if str(os.minor(facts.rdev)) in masters or _key(facts) in scene.streams:
            continue
        # One terminal is usually three descriptors; one line for it is enough.
        told.add(descriptor.target)
        yield member.obstacle(
            "fatal",
            "terminal-outside",
            f"fd {descriptor.fd}",
            f"the terminal {descriptor.target}, whose other side is outside the task: a restore"
            " has none to give it",
            _REMEDY,
        )


def check_controlling_terminal(member: Member, scene: Scene) -> Iterator[Obstacle]:
    """Find /dev/tty open in a process that does not also have the terminal itself open.

    One that is handed over at the restore does not count for CRIU.
    """
    slaves = {
        one.rdev
        for one in member.files.values()
        if _is_slave(one) and _key(one) not in scene.streams
    }
    for descriptor in member.descriptors:
        facts = member.files.get(descriptor.fd)
        if facts is None or not stat.S_ISCHR(facts.mode) or facts.rdev != _CONTROLLING:
            continue
        if member.stat.tty not in slaves:
            yield member.obstacle(
                "fatal",
                "controlling-terminal",
                f"fd {descriptor.fd}",
                f"{descriptor.target}: CRIU knows the controlling terminal only of a process that"
                " also has both it and its master open in the task",
                "close it before the dump",
            )


def _is_slave(facts: FileFacts) -> bool:
    return stat.S_ISCHR(facts.mode) and os.major(facts.rdev) == _SLAVE_MAJOR


def _key(facts: FileFacts) -> str:
    """Return CRIU's name of a terminal that is handed over to it."""
    return f"tty[{facts.rdev:x}:{facts.dev:x}]"
