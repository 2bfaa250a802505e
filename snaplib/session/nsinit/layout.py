"""How a session's streams are laid out as its specification says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from snaplib.session.nsinit.streams import Streams

__all__ = ["lay_out"]


def lay_out(spec: Mapping[str, Any]) -> Streams:
    """Lay out the streams of a session; afterwards its init has no descriptors and folder of whoever started it.

    Args:
        spec: The specification.
    """
    outer = list(spec["outer"])
    if spec["mode"] == "launch":
        streams = Streams.for_launch(outer, spec["direct"])
    else:
        data = {fd: _contents(fd) for fd in spec["data"]}
        streams = Streams.for_restore(
            spec["streams"],
            outer,
            inputs={int(key): data[fd] for key, fd in spec["inputs"].items()},
            outputs={int(key): data[fd] for key, fd in spec["outputs"].items()},
        )
    streams.awaits_raw = spec["interactive"]
    for fd in {*outer, *spec["data"]}:
        os.close(fd)
    null = os.open("/dev/null", os.O_RDWR)
    for number in range(3):
        os.dup2(null, number, inheritable=False)
    os.chdir("/")
    return streams


def _contents(fd: int) -> bytes:
    with open(os.dup(fd), "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        file.seek(0)
        return file.read()
