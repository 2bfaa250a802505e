"""Pipes: packet mode, and ends that are held outside the task."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from snaplib.checkpoint.preflight.scene import inode_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snaplib.checkpoint.preflight.obstacle import Obstacle
    from snaplib.checkpoint.preflight.scene import Member, Scene

__all__ = ["check_outside_ends", "check_packet_mode"]


def check_outside_ends(member: Member, scene: Scene) -> Iterator[Obstacle]:
    """Find pipes that lead out of the task: after a restore nobody is at the other end."""
    for descriptor in member.descriptors:
        writes = scene.half_held_pipes.get(descriptor.target)
        if writes is None:
            continue
        others = [
            one
            for one in scene.holders.get(descriptor.target, ())
            if (one.readable if writes else one.writable)
        ]
        # Nobody at all at the other end: it is broken already, and so it is restored.
        if others:
            yield member.obstacle(
                "lost",
                "pipe-outside",
                f"fd {descriptor.fd}",
                f"{descriptor.target} {'to' if writes else 'from'} {others[0].name}, which is not"
                " part of the task: after a restore nobody is at the other end",
                "launch the task with `snaplib run`, which keeps its streams, or use a file",
            )


def check_packet_mode(member: Member, _scene: Scene) -> Iterator[Obstacle]:
    """Find pipes in packet mode (pipe2(2), O_DIRECT), which CRIU refuses."""
    for descriptor in member.descriptors:
        if descriptor.flags & os.O_DIRECT and inode_in(descriptor.target, "pipe") is not None:
            yield member.obstacle(
                "fatal",
                "packet-pipe",
                f"fd {descriptor.fd}",
                f"{descriptor.target} is in packet mode (O_DIRECT), which CRIU cannot dump",
                "have the program make the pipe without O_DIRECT, or use a socket pair",
            )
